#!/usr/bin/env bash
# Makes the packages, installs them where they are meant to be, and uses them: see docs/internals/testing.md.
#
#   tests/packages/run.sh [image|compose|deb|systemd|rpm|tarball|proxies|kubernetes|alertmanager]...     default: all of them
#
# As root. What is run lives in namespaces of its own: loopback is all of its network, and whatever it starts and mounts ends with it.
# Made before, with the network: the tools (scripts/setup.sh), a Debian that is kept in .tools (delete it for a newer one), the stand-ins for images of
# registries (tests/packages/images), the packages. PACKAGES_KEEP=yes takes the packages that are there already.
set -euo pipefail
cd "$(dirname "$0")/../.."

parts=("$@")
[ "${#parts[@]}" -gt 0 ] || parts=(image compose deb systemd rpm tarball proxies kubernetes alertmanager)
[ "$(id -u)" -eq 0 ] || { echo "packages-test: as root, for namespaces, mounts and users of its own" >&2; exit 1; }

scripts/setup.sh packages-test
export TOOLS_DIR=${TOOLS_DIR:-$PWD/.tools}
scratch=$(mktemp -d /var/tmp/convoke-packages.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
export scratch
nats=$(printf '%s\n' "$TOOLS_DIR"/nats-server/* | sort -V | tail -n 1)
export PATH=$TOOLS_DIR:$TOOLS_DIR/packaging/bin:$nats:$PATH

wants() { case " ${parts[*]} " in *" $1 "*) true ;; *) false ;; esac; }
step() { printf '\n── %s (at %d s)\n' "$*" "$SECONDS"; }

# Containers, without a service and in a folder of this run. More open files or processes than this are not everywhere to be had.
mkdir -p "$scratch/containers" "$scratch/run"
cat >"$scratch/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$scratch/containers"
runroot = "$scratch/run"
END
cat >"$scratch/containers.conf" <<END
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_config_dir = "$scratch/networks"
END
export CONTAINERS_STORAGE_CONF=$scratch/storage.conf CONTAINERS_CONF=$scratch/containers.conf BUILDAH_ISOLATION=chroot

# Made once and only read: machines and images lie over it.
export debian=$TOOLS_DIR/packaging/debian-bookworm
if [ ! -e "$debian/.whole" ]; then
  step "a Debian, kept in $debian"
  rm -rf "$debian"
  mkdir -p "$(dirname "$debian")"
  debootstrap --variant=minbase --include=ca-certificates,curl,dbus,procps,python3-minimal,rpm,sqlite3,sudo,systemd,systemd-sysv,wget \
    bookworm "$debian" >"$scratch/debootstrap.log" 2>&1 || { tail "$scratch/debootstrap.log"; exit 1; }
  rm -f "$debian"/var/cache/apt/archives/*.deb
  touch "$debian/.whole"
fi

stand_in() { buildah build --quiet --file "tests/packages/images/$1.Dockerfile" --tag "$2" "$scratch/context" >/dev/null; }

if wants image || wants compose; then
  step "stand-ins for the images of registries"
  tar -C "$debian" --create . | podman import --quiet - localhost/debian:bookworm
  mkdir "$scratch/context"
  cp "$nats/nats-server" tests/packages/images/postgres-entrypoint.sh "$scratch/context/"
  if [ "${PACKAGES_KEEP:-}" != yes ]; then
    cp -r "$(rustc --print sysroot)" "$scratch/context/toolchain"
    rm -rf "$scratch/context/toolchain/share"
    cargo vendor --quiet --locked --versioned-dirs "$scratch/context/vendor" >/dev/null
    printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "/usr/local/cargo/vendor"\n[net]\noffline = true\n' >"$scratch/context/config.toml"
    stand_in rust "docker.io/library/$(sed -n 's/^ARG RUST_IMAGE=//p' deploy/Dockerfile)"
  fi
  stand_in postgres "docker.io/library/$(sed -n 's/^ *image: \(postgres:.*\)/\1/p' deploy/compose/compose.yaml)"
  stand_in nats "docker.io/library/$(sed -n 's/^ *image: \(nats:.*\)/\1/p' deploy/compose/compose.yaml)"
  rm -rf "$scratch/context"
fi

export dist=$PWD/target/packages/dist
packages=()
if wants deb || wants systemd || wants rpm || wants tarball || wants proxies; then packages+=(deb rpm tarball); fi
if wants image || wants compose; then packages+=(image); fi
if [ "${#packages[@]}" -gt 0 ] && [ "${PACKAGES_KEEP:-}" != yes ]; then
  step "the packages: ${packages[*]}"
  scripts/packages.sh "${packages[@]}"
fi

step "in a network of its own: ${parts[*]}"
unshare --net --mount --pid --fork --kill-child --mount-proc bash tests/packages/parts.sh "${parts[@]}"
printf '\npackages-test: %d s in all\n' "$SECONDS"
