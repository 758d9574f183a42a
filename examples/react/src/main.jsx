import { createRoot } from "react-dom/client";

import { App } from "./App.jsx";
import { openSession } from "./session.js";

const root = createRoot(/** @type {HTMLElement} */ (document.getElementById("root")));

try {
  const { payouts, userId } = await openSession();
  root.render(<App payouts={payouts} userId={userId} />);
} catch {
  root.render(
    <main>
      <p role="alert">We cannot reach our server. Please reload the page in a moment.</p>
    </main>,
  );
}
