# Stands in for the official image of Rust, where no registry is reached: the same Debian, the toolchain of this machine, and
# the crates of Cargo.lock, so that the build asks nobody.
FROM localhost/debian:bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev ca-certificates >/dev/null
COPY toolchain /usr/local/rust
COPY vendor /usr/local/cargo/vendor
COPY config.toml /usr/local/cargo/config.toml
ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# What is tried is the file and the image, not how fast the program is.
ENV CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=0
