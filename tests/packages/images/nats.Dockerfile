# Stands in for the official image of NATS, with the program that the tests run on.
FROM localhost/debian:bookworm
COPY nats-server /usr/local/bin/nats-server
ENTRYPOINT ["/usr/local/bin/nats-server"]
