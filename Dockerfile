# The figures on a CPU, as a user without rights:
#   docker build -t sae-unlearning .
#   docker run --name figures sae-unlearning && docker cp figures:/home/reader/sae-unlearning/figures .
FROM python:3.11-slim

# slim has no make; git is asked which commit made a figure, where the folder is a checkout (as in the devcontainer)
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 reader

USER reader
WORKDIR /home/reader/sae-unlearning

# an index with torch built without CUDA saves gigabytes: docker build --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL
# outside the folder, so that a checkout mounted in its place finds it too
ENV VENV=/home/reader/venv \
    PIP_NO_CACHE_DIR=1

# the packages in a layer of their own, which a change of code leaves as it is
COPY --chown=reader requirements.lock ./
RUN python3 -m venv "$VENV" && "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.lock

COPY --chown=reader . .
RUN make setup

CMD ["make", "figures"]
