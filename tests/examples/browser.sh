#!/bin/sh
# Find a Chromium for the tests of the panel and the React form. As root, install Debian's; change nothing else.
# Never fails: without it those tests are skipped, and in CI they report what is missing.
for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Debian's Chromium, for the tests of the panel and the React form (once, half a minute) …"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null
  command -v chromium >/dev/null && exit 0
fi
echo "There is no Chromium, so the tests of the panel and the React form are skipped. On Debian: apt-get install chromium"
