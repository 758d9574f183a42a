# One image for every process of the system; compose says which word of `payouts` each one runs.
FROM docker.io/library/python:3.13-slim AS production

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app
WORKDIR /app

# requirements-observed.lock has the extras `tracing` and `sentry` as well.
ARG REQUIREMENTS=requirements.lock
COPY ${REQUIREMENTS} ./
RUN python -m pip install --no-cache-dir --no-deps --require-hashes -r ${REQUIREMENTS}

COPY shared ./shared
COPY api ./api
COPY worker ./worker
COPY cli ./cli
RUN printf '#!/bin/sh\nexec python -m cli "$@"\n' > /usr/local/bin/payouts && chmod 755 /usr/local/bin/payouts \
 && useradd --system --no-create-home payouts

USER payouts
ENTRYPOINT ["payouts"]
CMD ["api"]

# The RazorpayX simulator, for trying things out. No production image has it.
FROM production AS sandbox

USER root
COPY requirements-simulator.lock ./
RUN python -m pip install --no-cache-dir --no-deps --require-hashes -r requirements-simulator.lock
COPY sandbox ./sandbox
USER payouts
ENTRYPOINT ["python", "-m", "sandbox.razorpayx"]
CMD []

# What `docker build .` makes when nobody says which.
FROM production
