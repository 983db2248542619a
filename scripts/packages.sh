#!/usr/bin/env bash
# Makes packages of Convoke, in target/packages/dist: a .deb, an .rpm, a tarball, an image (an OCI archive), their checksums.
#
#   scripts/packages.sh [--arch x86_64|aarch64] [--revision N] [--program FILE] [deb|rpm|tarball|image]...      default: all of them
#
# One program is in the first three: built by cargo-zigbuild, it asks for glibc 2.17 and nothing else, so that it runs on
# whatever is newer. The image is built by buildah as deploy/Dockerfile says, from the image that RUST_IMAGE names if it is
# set. What is not built for this machine needs Rust's library for it (rustup target add aarch64-unknown-linux-gnu), and
# the texts that the packages for this machine were made with.
set -euo pipefail
cd "$(dirname "$0")/.."

glibc=2.17
arch=$(uname -m)
revision=1
program=
tools=${TOOLS_DIR:-$PWD/.tools}
export PATH="$tools/packaging/bin:$tools/venv-packages/bin:$PATH"

die() { printf 'packages: %s\n' "$*" >&2; exit 1; }
say() { printf 'packages: %s\n' "$*" >&2; }

wanted=()
while [ $# -gt 0 ]; do
  case $1 in
    --arch) arch=${2:?}; shift ;;
    --revision) revision=${2:?}; shift ;;
    # One that was built already, the same way.
    --program) program=${2:?}; shift ;;
    deb | rpm | tarball | image) wanted+=("$1") ;;
    *) die "'$1' is none of deb, rpm, tarball, image, --arch, --revision, --program" ;;
  esac
  shift
done
[ "${#wanted[@]}" -gt 0 ] || wanted=(deb rpm tarball image)
case $arch in
  amd64 | x86_64) arch=x86_64 ;;
  arm64 | aarch64) arch=aarch64 ;;
  *) die "for x86_64 and aarch64, not for '$arch'" ;;
esac

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
triple=$arch-unknown-linux-gnu
work=target/packages
root=$work/root
dist=$work/dist
name=convoke-$version-$arch
# Every time stamp, so that the same source makes the same packages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

wants() { case " ${wanted[*]} " in *" $1 "*) true ;; *) false ;; esac; }

# The program keeps the names of its functions, for what it says when it panics, and loses line numbers.
build() {
  [ -z "$program" ] || return 0
  [ -d "$(rustc --print target-libdir --target "$triple")" ] ||
    die "this Rust has no library for $triple: rustup target add $triple"
  # jemalloc runs on kernels whose pages are no larger than this (2^16 bytes on arm64).
  [ "$arch" != aarch64 ] || export JEMALLOC_SYS_WITH_LG_PAGE=16
  CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    cargo zigbuild --locked --release --bin convoke --target "$triple.$glibc"
  program=target/$triple/release/convoke
}

# Completions and man pages, which are the same for every machine: asked of the program itself.
texts() {
  local texts=$work/texts
  if [ "$arch" = "$(uname -m)" ]; then
    rm -rf "$texts"
    mkdir -p "$texts/man" "$texts/completions"
    "$program" completions bash >"$texts/completions/convoke.bash"
    "$program" completions zsh >"$texts/completions/_convoke"
    "$program" completions fish >"$texts/completions/convoke.fish"
    "$program" man "$texts/man"
  fi
  [ -d "$texts" ] || die "make the packages for $(uname -m) first: the man pages are taken from there"
}

# lay FILE TO [MODE]
lay() { install -D -m "${3:-0644}" "$1" "$2"; }

# What a package installs, as it lies on the machine afterwards.
lay_out() {
  local page doc=$root/usr/share/doc/convoke
  rm -rf "$root" "$work/unit"
  lay "$program" "$root/usr/bin/convoke" 0755
  lay deploy/systemd/convoke.sysusers "$root/usr/lib/sysusers.d/convoke.conf"
  lay deploy/systemd/convoke.toml "$root/etc/convoke/convoke.toml" 0640
  mkdir -p "$work/unit"
  sed 's|/usr/local/bin/|/usr/bin/|' deploy/systemd/convoke.service >"$work/unit/convoke.service"
  lay "$work/texts/completions/convoke.bash" "$root/usr/share/bash-completion/completions/convoke"
  lay "$work/texts/completions/convoke.fish" "$root/usr/share/fish/vendor_completions.d/convoke.fish"
  # Debian's place for it, and everybody else's.
  lay "$work/texts/completions/_convoke" "$root/usr/share/zsh/vendor-completions/_convoke"
  lay "$work/texts/completions/_convoke" "$root/usr/share/zsh/site-functions/_convoke"
  for page in "$work"/texts/man/*; do
    mkdir -p "$root/usr/share/man/man1"
    gzip -9n <"$page" >"$root/usr/share/man/man1/$(basename "$page").gz"
  done
  documents "$doc"
}

# The documentation and the samples, beside each other as here, so that their links lead somewhere.
documents() {
  local file
  git ls-files README.md README.zh-CN.md CHANGELOG.md docs deploy | while read -r file; do
    case $file in
      deploy/packages/* | deploy/image/*) ;;
      *) lay "$file" "$1/$file" ;;
    esac
  done
}

deb() {
  cargo deb --locked --no-build --no-strip --target "$triple" --deb-revision "$revision" --output "$dist/"
}

rpm() {
  cargo generate-rpm --target "$triple" --set-metadata "release = \"$revision\"" --output "$dist/"
}

# put_together NAME: a folder as an archive whose bytes say nothing of who made it when.
put_together() {
  tar --create --gzip --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --file "$dist/$1.tar.gz" --directory "$work" "$1"
}

tarball() {
  rm -rf "${work:?}/$name"
  lay "$program" "$work/$name/convoke" 0755
  documents "$work/$name"
  cp -r "$work/texts/completions" "$work/texts/man" "$work/$name/"
  put_together "$name"
  rm -rf "${work:?}/$name"
}

image() {
  local tag=convoke:$version
  [ "$arch" = "$(uname -m)" ] || die "the image is built on a machine of its kind"
  buildah build --file deploy/Dockerfile --tag "$tag" \
    --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --build-arg "REVISION=$(git rev-parse HEAD)" \
    ${RUST_IMAGE:+--build-arg "RUST_IMAGE=$RUST_IMAGE"} .
  rm -f "$dist/$name.oci.tar"
  buildah push "$tag" "oci-archive:$dist/$name.oci.tar:$tag"
}

mkdir -p "$dist"
if wants deb || wants rpm || wants tarball; then
  build
  texts
  lay_out
fi
for package in "${wanted[@]}"; do
  say "$package for $arch"
  "$package"
done
(cd "$dist" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%f\n' | sort | xargs sha256sum >SHA256SUMS)
say "in $dist:"
(cd "$dist" && ls -l >&2)
