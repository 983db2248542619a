# Stands in for the official image of PostgreSQL: Debian's package, and of the entrypoint what compose.yaml asks for.
FROM localhost/debian:bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql-common >/dev/null \
 && sed -i '/^ *create_main_cluster/d' /etc/postgresql-common/createcluster.conf \
 && echo 'create_main_cluster = false' >>/etc/postgresql-common/createcluster.conf \
 && apt-get install -y -qq --no-install-recommends postgresql-15 >/dev/null \
 && ln -s /usr/lib/postgresql/15/bin/* /usr/local/bin/ 2>/dev/null; install -d -o postgres -g postgres /var/run/postgresql
COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENV PGDATA=/var/lib/postgresql/data
ENTRYPOINT ["/bin/bash", "/usr/local/bin/docker-entrypoint.sh"]
