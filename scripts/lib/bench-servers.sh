# shellcheck shell=bash
# The servers that bench-run measures, with the certificates and the configurations for them. It runs in a folder of its
# own ($folder), which all of this is written to; the ports are bench-run's.

certificate() { # NAME KIND, where KIND is what `openssl req -newkey` takes
  local name="$1"
  shift
  openssl req -newkey "$@" -nodes -subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
    -extfile <(printf 'subjectAltName=DNS:%s\n' "$name") -out "$name.pem"
}
certificates() {
  local p256=(ec -pkeyopt ec_paramgen_curve:P-256)
  openssl req -x509 -newkey "${p256[@]}" -nodes -days 2 -subj "/CN=bench CA" -keyout ca.key -out ca.pem
  certificate edge.test "${p256[@]}"
  certificate carrier.test "${p256[@]}"
  certificate pbx.test "${p256[@]}"
  certificate rsa.test rsa:2048
}

# ktrunkd between the trunks "carrier" and "pbx".
ktrunkd_configuration() { # WORKERS [STALLED_PEER]
  cat <<END
[ktrunk]
workers = $1
control = "$folder/control.sock"
quarantine = "$folder/quarantine"

[limits]
handshake_rate = 1000000
handshakes_per_address = 4096
connections_per_address = 16384
stalled_peer = "${2:-30s}"

[[listen]]
name = "edge"
transport = "tls"
address = "127.0.0.1:${ports[0]}"
certificate = "edge.test.pem"
key = "edge.test.key"
ca = "ca.pem"
verify_client = "optional"

# Asks for no certificate, as the bare server that its handshakes are compared with.
[[listen]]
name = "plain"
transport = "tls"
address = "127.0.0.1:${ports[3]}"
certificate = "edge.test.pem"
key = "edge.test.key"

[[listen.certificates]]
certificate = "rsa.test.pem"
key = "rsa.test.key"

[[trunk]]
name = "carrier"
verify_name = "carrier.test"

[[trunk]]
name = "pbx"
targets = ["tls:127.0.0.1:${ports[2]}"]
verify_name = "pbx.test"
ca = "ca.pem"
certificate = "edge.test.pem"
key = "edge.test.key"

[[route]]
from_trunk = "carrier"
to = "pbx"
END
}

ktrunkd_start() { # WORKERS [STALLED_PEER]
  ktrunkd_configuration "$@" >ktrunk.toml
  "$bin/ktrunkd" --config ktrunk.toml >ktrunkd.log 2>&1 &
  ktrunkd=$!
  local tries
  for ((tries = 0; tries < 240; ++tries)); do
    "$bin/ktrunk" status --config ktrunk.toml >/dev/null 2>&1 && return
    kill -0 "$ktrunkd" 2>/dev/null || give_up "ktrunkd ended at its start"
    sleep 0.25
  done
  give_up "ktrunkd did not come up"
}
ktrunkd_stop() {
  kill "$ktrunkd"
  wait "$ktrunkd" || give_up "ktrunkd did not end in order"
}

# Kamailio, as stateless as ktrunkd, with as many processes as one worker needs.
kamailio_configuration() {
  cat <<END
debug=0
log_stderror=yes
children=1
tcp_children=1
tcp_connection_lifetime=3605
tcp_max_connections=16384
tls_max_connections=16384
enable_tls=yes
listen=tls:127.0.0.1:${ports[1]}
mpath="$(dirname "$(find /usr/lib -name tls.so -path '*kamailio*' -print -quit)")/"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "rr.so"
loadmodule "tls.so"
modparam("tls", "config", "$folder/tls.cfg")
request_route {
  if (!mf_process_maxfwd_header("70")) { sl_send_reply("483", "Too Many Hops"); exit; }
  if (!loose_route()) {
    if (method == "INVITE" || method == "SUBSCRIBE") record_route();
    \$du = "sip:127.0.0.1:${ports[2]};transport=tls";
  }
  forward();
}
END
  cat >tls.cfg <<END
[server:default]
method = TLSv1.2+
verify_certificate = yes
require_certificate = no
private_key = $folder/edge.test.key
certificate = $folder/edge.test.pem
ca_list = $folder/ca.pem
[client:default]
method = TLSv1.2+
verify_certificate = yes
require_certificate = yes
private_key = $folder/edge.test.key
certificate = $folder/edge.test.pem
ca_list = $folder/ca.pem
END
}

kamailio_start() { # sets kamailio_pids, with commas
  kamailio_configuration >kamailio.cfg
  # The memory that its processes share is for all connections' TLS.
  kamailio -f kamailio.cfg -DD -E -m 512 -Y "$folder" >kamailio.log 2>&1 &
  kamailio=$!
  # All its processes are there when their number stays the same.
  local before=0 processes tries
  for ((tries = 0; tries < 120; ++tries)); do
    sleep 1
    kill -0 "$kamailio" 2>/dev/null || give_up "Kamailio ended at its start"
    processes="$(pgrep -c -P "$kamailio" || true)"
    ((processes == 0 || processes != before)) || break
    before="$processes"
  done
  kamailio_pids="$kamailio,$(pgrep -P "$kamailio" -d ,)"
}
kamailio_stop() {
  kill "$kamailio"
  wait "$kamailio" || true
}
