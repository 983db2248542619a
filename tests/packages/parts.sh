#!/usr/bin/env bash
# The parts of run.sh, which starts this in namespaces of its own.
set -Eeuo pipefail
# shellcheck source=tests/packages/lib.sh
. tests/packages/lib.sh
trap 'echo "FAIL  line $LINENO: $BASH_COMMAND"' ERR
ip link set lo up
# So that nothing that is mounted here is seen outside, nor stays.
mount --make-rprivate /
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
page=docs/install/packages.md
# It is root's already.
sudo() { "$@"; }
export -f sudo

# ── the image ─────────────────────────────────────────────────────────────────────────────────────────────────────

part_image() {
  part "the image, built from deploy/Dockerfile"
  cd "$scratch"
  mkdir image && cd image
  ln -s "$dist"/*.oci.tar .
  podman rmi --force "convoke:$version" >/dev/null 2>&1 || true
  bash -euc "$(block "$top/$page" "sh image")" >"$scratch/image.log" 2>&1 || { cat "$scratch/image.log"; fail "the steps of $page"; }
  eventually "it takes events" ready
  is "65532:65532" "$(podman inspect --format '{{.Config.User}}' convoke)" "its user"
  is "1024:1024 4096:4096" "$(awk '/Max processes/ { p = $3 ":" $4 } /Max open files/ { print p, $4 ":" $5 }' "/proc/$(podman inspect --format '{{.State.Pid}}' convoke)/limits")" "its limits, of which it takes what it may"
  ok "the archive is loaded and runs as the page prints it: read-only, as 65532, with few files and processes"
  post handshake "$events_url" || fail "the handshake"
  post events "$events_url" 50 "$scratch/image.ledger"
  sqlite3 "$(podman volume inspect --format '{{.Mountpoint}}' convoke-data)/convoke.db" 'SELECT meeting_id FROM events' >"$scratch/stored"
  compare "$scratch/image.ledger" "$scratch/stored"
  podman exec convoke convoke check >"$scratch/image.check" || { cat "$scratch/image.check"; fail "check"; }
  ok "the handshake and 50 signed events are in its volume, and check finds nothing wrong"
  podman exec convoke sh -c true 2>/dev/null && fail "there is a shell in it"
  local began=$SECONDS
  podman stop convoke >/dev/null
  [ $((SECONDS - began)) -lt 30 ] || fail "the stop took $((SECONDS - began)) s"
  is 0 "$(podman inspect --format '{{.State.ExitCode}}' convoke)" "its status after a stop"
  podman start convoke >/dev/null
  eventually "it takes events again" ready
  is 50 "$(sqlite3 "$(podman volume inspect --format '{{.Mountpoint}}' convoke-data)/convoke.db" 'SELECT count(*) FROM events')" "events after a restart"
  podman rm --force --time 30 convoke >/dev/null
  ok "it has no shell, ends by itself within its grace, with status 0, and starts again with what it had"
  cd "$top"
}

# ── Compose ───────────────────────────────────────────────────────────────────────────────────────────────────────

compose() { podman-compose "$@" >>"$scratch/compose.log" 2>&1 || { tail -50 "$scratch/compose.log"; fail "compose $*"; }; }
container() { podman ps --all --filter "label=com.docker.compose.service=$1" --format '{{.Names}}'; }

part_compose() {
  part "the three services of deploy/compose"
  podman image exists "convoke:$version" || podman load --quiet --input "$dist/"*.oci.tar >/dev/null
  cp -r deploy/compose "$scratch/compose"
  cd "$scratch/compose"
  eval "$(block "$top/docs/install/compose.md" sh)"
  compose up --detach
  eventually "it takes events" ready
  post handshake "$events_url" || fail "the handshake"
  post events "$events_url" 100 "$scratch/compose.ledger"
  postgres=$(container postgres)
  convoke=$(container convoke)
  psql_inside() { podman exec "$postgres" psql --username convoke --dbname convoke --no-align --tuples-only --command "$1"; }
  psql_inside 'SELECT meeting_id FROM events' >"$scratch/stored"
  compare "$scratch/compose.ledger" "$scratch/stored"
  ok "they run with the secrets as the page makes them; 100 signed events are in PostgreSQL"
  podman exec "$convoke" convoke check >"$scratch/compose.check" || { cat "$scratch/compose.check"; fail "check"; }
  eventually "log and stream are the same" podman exec "$convoke" convoke audit
  ok "check finds nothing wrong, and audit finds all of them in NATS"
  podman exec "$postgres" bash -c 'psql --host postgres --username convoke --no-password -c "SELECT 1"' >/dev/null 2>&1 &&
    fail "PostgreSQL lets in whoever has no password"
  is on "$(psql_inside 'SHOW data_checksums')" "checksums of pages"
  compose down
  compose up --detach
  eventually "it takes events again" ready
  is 100 "$(psql_inside 'SELECT count(*) FROM events')" "events after all were ended and started"
  compose down
  ok "all ended and started again: nothing is lost"
  cd "$top"
}

# ── the .deb, in a Debian that was booted ─────────────────────────────────────────────────────────────────────────

# newer FILE: the same package with a higher version, and other settings in it.
newer() {
  rm -rf "$scratch/newer"
  dpkg-deb --raw-extract "$1" "$scratch/newer"
  sed -i 's/^Version: .*/Version: '"$version-2"'/' "$scratch/newer/DEBIAN/control"
  printf '\n# What a later version says.\n' >>"$scratch/newer/etc/convoke/convoke.toml"
  (cd "$scratch/newer" && find . -type f ! -path './DEBIAN/*' -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' md5sum >DEBIAN/md5sums)
  dpkg-deb --build --root-owner-group -Znone "$scratch/newer" "$2" >/dev/null
}

# steps PAGE INFO: as they are printed, in the machine.
steps() { inside bash -euc "$(block "$1" "$2")" >"$scratch/steps.log" 2>&1 || { cat "$scratch/steps.log"; fail "the steps of $1"; }; }

# under_load COMMAND...: events come in all the while, from outside, and none may be lost.
under_load() {
  python3 tests/packages/post.py stream "$events_url" "$ledger" >"$scratch/poster.log" &
  local poster=$! before
  before=$(main_pid)
  eventually "events come in" bash -c "[ \"\$(wc -l <'$ledger')\" -gt 60 ]"
  "$@"
  eventually "the newer one runs" another_process "$before"
  local seen
  seen=$(wc -l <"$ledger")
  eventually "events go on coming in" bash -c "[ \"\$(wc -l <'$ledger')\" -gt $((seen + 50)) ]"
  kill "$poster"
  wait "$poster" || fail "the platform gave up"
  stored "$scratch/stored"
  compare "$ledger" "$scratch/stored"
  printf '      %s\n' "$(cat "$scratch/poster.log")"
}

# Asked, one would keep one's settings: that is the answer without a terminal, too.
upgrade_deb() {
  inside apt-get install -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold ./newer.deb >"$scratch/upgrade.log" 2>&1 ||
    { cat "$scratch/upgrade.log"; fail "the upgrade"; }
}

part_deb() {
  part "the .deb in a Debian that was booted"
  ledger=$scratch/deb.ledger
  start_nats deb
  boot deb
  cp "$dist"/convoke_*_amd64.deb "$machine/root/root/"
  steps "$page" "sh deb"
  first_contact
  is "/lib/systemd/system/convoke.service enabled" "$(inside bash -c 'echo $(systemctl show -p FragmentPath --value convoke | sed s,^/usr,,) $(systemctl is-enabled convoke)')" "the unit"
  ok "installed as the page prints it: handshake, events, check without FAIL, nobody else reads the keys"
  inside bash -ec 'test -s /usr/share/man/man1/convoke.1.gz; test -s /usr/share/bash-completion/completions/convoke; test -s /usr/share/doc/convoke/deploy/prometheus/alerts.yml; bash -n /usr/share/bash-completion/completions/convoke' || fail "man page, completions, samples"
  restarts
  inside sed -i 's/^\[log\]//; $a # A line of mine.' /etc/convoke/convoke.toml
  newer "$machine/root/root/"convoke_*_amd64.deb "$machine/root/root/newer.deb"
  under_load upgrade_deb
  is "$version-2" "$(inside dpkg-query -f '${Version}' -W convoke)" "the version"
  has "$(inside cat /etc/convoke/convoke.toml)" "A line of mine" "the settings"
  has "$(inside cat /etc/convoke/convoke.toml.dpkg-dist)" "What a later version says" "the settings of the package"
  is "root:convoke 640" "$(inside stat -c '%U:%G %a' /etc/convoke/convoke.toml)" "its rights after the upgrade"
  ok "upgraded while events came in: none is lost, the edited settings stay, the package's lie beside them"
  power_off
  boot deb
  eventually "it takes events after a reboot" ready
  stored "$scratch/stored"
  compare "$ledger" "$scratch/stored"
  ok "the machine booted again: it runs, with everything that it had"
  local token
  token=$(inside cat /etc/convoke/admin-token)
  inside apt-get remove -y convoke >"$scratch/remove.log" 2>&1 || { cat "$scratch/remove.log"; fail "remove"; }
  ready && fail "it still runs"
  inside test -s /var/lib/convoke/convoke.db -a -s /etc/convoke/convoke.toml -a -s /etc/convoke/app-key || fail "remove takes data"
  inside dpkg -i newer.deb >"$scratch/again.log" 2>&1 || { cat "$scratch/again.log"; fail "the second installation"; }
  inside systemctl enable --now convoke
  eventually "it takes events again" ready
  stored "$scratch/stored"
  compare "$ledger" "$scratch/stored"
  is "$token" "$(inside cat /etc/convoke/admin-token)" "the token"
  ok "removed: data, settings and keys stay, and a second installation goes on with them"
  inside apt-get purge -y convoke >"$scratch/purge.log" 2>&1 || { cat "$scratch/purge.log"; fail "purge"; }
  ready && fail "it still runs"
  for path in /var/lib/convoke /etc/convoke /usr/bin/convoke /usr/share/doc/convoke /lib/systemd/system/convoke.service; do
    inside test ! -e "$path" || fail "$path is still there"
  done
  is "" "$(inside find /etc/systemd /var/lib/systemd -name 'convoke*')" "what is left of the unit"
  ok "purged: nothing is left of it"
  power_off
  stop "$nats"
}

# ── docs/install/systemd.md, in a Debian that was booted ──────────────────────────────────────────────────────────

part_systemd() {
  part "the steps of docs/install/systemd.md in a Debian that was booted"
  ledger=$scratch/systemd.ledger
  start_nats systemd
  boot systemd
  cp -r deploy "$machine/root/root/"
  install -D target/packages/root/usr/bin/convoke "$machine/root/root/target/release/convoke"
  # Built is there already.
  inside bash -euc "$(replaced "$(block docs/install/systemd.md "sh build")" "cargo build --release --locked" "")"
  steps docs/install/systemd.md "sh install"
  first_contact
  ok "installed as the page prints it: handshake, events, check without FAIL, nobody else reads the keys"
  restarts
  local before
  before=$(main_pid)
  inside systemctl reload convoke
  post events "$events_url" 5 "$ledger"
  is "$before" "$(main_pid)" "the process after a reload"
  inside systemctl stop convoke
  has "$(inside systemctl show --property Result --property ExecMainStatus convoke)" "Result=success" "the stop"
  has "$(inside journalctl -u convoke --no-pager)" "Stopped" "the journal"
  ok "reloads in place and stops by itself"
  power_off
  stop "$nats"
}

# ── the .rpm ──────────────────────────────────────────────────────────────────────────────────────────────────────

part_rpm() {
  part "the .rpm, installed by rpm in a machine with systemd"
  ledger=$scratch/rpm.ledger
  start_nats rpm
  boot rpm
  cp "$dist"/convoke-*."$(uname -m)".rpm "$machine/root/root/"
  cargo generate-rpm --target "$(uname -m)-unknown-linux-gnu" --set-metadata 'release = "2"' --payload-compress none --output "$machine/root/root/newer.rpm" >/dev/null
  # That Debian's packages are unknown to rpm is the one difference.
  inside bash -euc "$(replaced "$(block "$page" "sh rpm")" "dnf install" "rpm --install --nodeps")" >"$scratch/rpm.log" 2>&1 || { cat "$scratch/rpm.log"; fail "the steps of $page"; }
  first_contact
  ok "installed: handshake, events, check without FAIL, nobody else reads the keys"
  inside sed -i '$a # A line of mine.' /etc/convoke/convoke.toml
  under_load inside rpm --upgrade --nodeps newer.rpm
  has "$(inside cat /etc/convoke/convoke.toml)" "A line of mine" "the settings"
  has "$(inside rpm -q convoke)" "$version-2" "the version"
  ok "upgraded while events came in: none is lost, the edited settings stay"
  inside rpm --erase convoke
  ready && fail "it still runs"
  inside test -s /var/lib/convoke/convoke.db -a -s /etc/convoke/convoke.toml.rpmsave -a ! -e /usr/bin/convoke || fail "erase"
  ok "erased: the program is gone, the data and the edited settings are not"
  power_off
  stop "$nats"
}

# ── the tarball ───────────────────────────────────────────────────────────────────────────────────────────────────

part_tarball() {
  part "the tarball"
  mkdir "$scratch/tarball"
  (cd "$dist" && sha256sum --quiet --check SHA256SUMS) || fail "the checksums"
  tar -xzf "$dist/convoke-$version-$(uname -m).tar.gz" -C "$scratch/tarball" --strip-components 1
  local newest
  newest=$(objdump -T "$scratch/tarball/convoke" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)
  printf '      it asks for %s\n' "$newest"
  [ "$(printf '%s\nGLIBC_2.17\n' "$newest" | sort -V | tail -n 1)" = GLIBC_2.17 ] || fail "it asks for $newest"
  "$scratch/tarball/convoke" --version >/dev/null
  for file in completions/_convoke man/convoke.1 deploy/systemd/convoke.service docs/install/systemd.md; do
    [ -s "$scratch/tarball/$file" ] || fail "no $file"
  done
  ok "its checksum is right, its program asks for no newer C library than glibc 2.17 and runs"
}

# ── proxies ───────────────────────────────────────────────────────────────────────────────────────────────────────

outside() { curl -s --cacert "$authority" "$@"; }

# proxied NAME: what a proxy has to do, whichever it is.
proxied() {
  local site=https://hooks.example.com token form=$scratch/proxy/form stream=$scratch/proxy/stream before
  token=$(cat "$scratch/proxy/admin-token")
  before=$(sqlite3 "$scratch/proxy/convoke.db" 'SELECT count(*) FROM events')
  eventually "$1 answers" outside -o /dev/null "$site/"
  post handshake "$site/openapi/meetingevent" || fail "the handshake through $1"
  post events "$site/openapi/meetingevent" 10 "$scratch/proxy/ledger"
  is $((before + 10)) "$(sqlite3 "$scratch/proxy/convoke.db" 'SELECT count(*) FROM events')" "events through $1"
  is 405 "$(outside -o /dev/null -w '%{http_code}' "$site/openapi/meetingevent")" "a browser's look at the events' path"
  is 404 "$(outside -o /dev/null -w '%{http_code}' "$site/readyz")" "what is not named"
  is 403 "$(outside --interface 127.0.0.2 -o /dev/null -w '%{http_code}' -d '{}' "$site/openapi/meetingevent")" "a client that listen.allow_from does not name"
  is 403 "$(outside --interface 127.0.0.2 -H 'X-Forwarded-For: 127.0.0.1' -o /dev/null -w '%{http_code}' -d '{}' "$site/openapi/meetingevent")" "one that says that it is another"
  ok "$1: TLS, handshake, events, the client's address, nothing else open"
  is 401 "$(outside -o "$form" -w '%{http_code}' -H 'Accept: text/html' "$site/convoke/")" "the page without a session"
  has "$(cat "$form")" 'action="session"' "the form"
  is 303 "$(outside -o /dev/null -w '%{http_code}' -c "$scratch/proxy/cookies" -H "Origin: $site" --data-urlencode "token=$token" "$site/convoke/session")" "signing in"
  is 200 "$(outside -o "$form" -w '%{http_code}' -b "$scratch/proxy/cookies" -H 'Accept: text/html' "$site/convoke/")" "the page with a session"
  curl -s -N --cacert "$authority" -b "$scratch/proxy/cookies" "$site/convoke/api/v1/stream" >"$stream" &
  local reader=$!
  eventually "the stream has begun" test -s "$stream"
  post events "$site/openapi/meetingevent" 1 "$scratch/proxy/ledger"
  eventually "an event arrives live" grep -q "$(tail -n 1 "$scratch/proxy/ledger")" "$stream"
  stop "$reader"
  ok "$1: below /convoke/ the page signs in, and an event arrives there while it is looked at"
}

part_proxies() {
  part "the samples of docs/install/reverse-proxy.md before a real Convoke"
  local proxies=docs/install/reverse-proxy.md
  mkdir "$scratch/proxy"
  printf '127.0.0.1 localhost hooks.example.com\n' >"$scratch/proxy/hosts"
  mount --bind "$scratch/proxy/hosts" /etc/hosts
  head -c 32 /dev/urandom | base64 >"$scratch/proxy/admin-token"
  printf 'the password of the push configuration\n' >"$scratch/proxy/app-key"
  chmod 0600 "$scratch/proxy"/*
  {
    replaced "$(replaced "$(block $proxies toml)" /etc/convoke "$scratch/proxy")" '[listen]' $'[listen]\nallow_from = ["127.0.0.1"]'
    printf '[[subscriber]]\napp_id = "1988692299"\nkey_files = ["%s/app-key"]\n' "$scratch/proxy"
    printf '[database]\nurl = "sqlite://%s/convoke.db"\n[nats]\nurl = "none"\n' "$scratch/proxy"
  } >"$scratch/proxy/convoke.toml"
  target/packages/root/usr/bin/convoke serve --config "$scratch/proxy/convoke.toml" >"$scratch/proxy/convoke.log" 2>&1 &
  local convoke=$! proxy authority
  eventually "Convoke takes events" ready

  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hooks.example.com \
    -addext subjectAltName=DNS:hooks.example.com -keyout "$scratch/proxy/privkey.pem" -out "$scratch/proxy/fullchain.pem" 2>/dev/null
  authority=$scratch/proxy/fullchain.pem
  printf 'daemon off;\nmaster_process off;\npid %s/nginx.pid;\nevents {}\nhttp {\naccess_log off;\n%s\n%s\n}\n' "$scratch/proxy" \
    "$(printf '%s_temp_path '"$scratch"'/proxy/nginx;\n' client_body proxy fastcgi uwsgi scgi)" \
    "$(replaced "$(block $proxies nginx)" /etc/nginx "$scratch/proxy")" >"$scratch/proxy/nginx.conf"
  mkdir "$scratch/proxy/nginx"
  nginx -e stderr -p "$scratch/proxy/nginx" -c "$scratch/proxy/nginx.conf" >"$scratch/proxy/nginx.log" 2>&1 &
  proxy=$!
  proxied nginx
  stop "$proxy"

  # The certificate is of an authority of its own, as nobody else's is reached.
  { printf '{\n\tlocal_certs\n\tskip_install_trust\n\tadmin off\n}\n'; block $proxies caddyfile; } >"$scratch/proxy/Caddyfile"
  export XDG_DATA_HOME=$scratch/proxy/caddy XDG_CONFIG_HOME=$scratch/proxy/caddy
  caddy run --config "$scratch/proxy/Caddyfile" --adapter caddyfile >"$scratch/proxy/caddy.log" 2>&1 &
  proxy=$!
  authority=$scratch/proxy/caddy/caddy/pki/authorities/local/root.crt
  eventually "Caddy has its authority" test -s "$authority"
  proxied Caddy
  stop "$proxy"
  stop "$convoke"
  umount /etc/hosts
}

# ── what is only read ─────────────────────────────────────────────────────────────────────────────────────────────

part_kubernetes() {
  part "deploy/kubernetes"
  local chart=deploy/kubernetes/helm python=$TOOLS_DIR/venv/bin
  kubectl kustomize deploy/kubernetes >"$scratch/kustomize.yaml" || fail "kubectl kustomize"
  has "$(cat "$scratch/kustomize.yaml")" "image: convoke:$version" "the image"
  helm lint --strict --quiet "$chart" >"$scratch/helm.log" 2>&1 || { cat "$scratch/helm.log"; fail "helm lint"; }
  helm template convoke "$chart" >"$scratch/helm.yaml" 2>"$scratch/helm.log" || { cat "$scratch/helm.log"; fail "helm template"; }
  helm template other "$chart" --set ingress.enabled=false,networkPolicy.platform=true --set-file settings=deploy/compose/convoke.toml \
    >"$scratch/other.yaml" 2>"$scratch/helm.log" || { cat "$scratch/helm.log"; fail "helm template with values"; }
  "$python/kubernetes-validate" --strict --quiet "$scratch/kustomize.yaml" "$scratch/helm.yaml" "$scratch/other.yaml" || fail "the schemas"
  "$python/python" tests/packages/same.py "$scratch/kustomize.yaml" "$scratch/helm.yaml" || fail "chart and kustomization differ"
  ok "kustomize and the chart make the same $(grep -c '^kind:' "$scratch/helm.yaml") resources, which fit their schemas"
}

part_alertmanager() {
  part "deploy/prometheus/alertmanager.yml"
  amtool check-config deploy/prometheus/alertmanager.yml >"$scratch/amtool.log" 2>&1 || { cat "$scratch/amtool.log"; fail "amtool check-config"; }
  local severity
  for severity in critical warning; do
    printf '      %s: %s\n' "$severity" "$(amtool config routes test --config.file deploy/prometheus/alertmanager.yml job=convoke severity=$severity)"
  done
  ok "amtool takes it"
}

for name in "$@"; do "part_$name"; done
printf '\n%d passed, 0 failed\n' "$passed"
