#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bed.sh: a test bed with real IKEv2 peers (strongSwan) around a load balancer, in network namespaces.
#
#                                                     /-- hp-v1 10.77.2.11
#   hp-c1 .. hp-cN (clients) ----- hp-lb 10.77.1.1 --+--- hp-v2 10.77.2.12
#   10.78.N.2                      (the VIP)           \-- hp-v3 10.77.2.13
#
# Each has an IPv6 address as well: clients fd78:N::2, servers fd77:2::11 to ::13. VIP=fd77:1::1 makes the clients speak
# IPv6; which addresses of the servers the balancer takes is up to its configuration.
#
# With NAT=yes all clients live at 10.80.0.(10+N) behind hp-nat, and the balancer sees one address, 10.79.0.2.
#
# usage: bed.sh up [CLIENTS [SERVERS]]   build namespaces and start every VPN server (default 4 and 3)
#        bed.sh lb COMMAND [ARG...]      run COMMAND in the balancer's namespace, in the background
#        bed.sh in NAME COMMAND...       run COMMAND in namespace NAME (lb, v1, c1, ...), in the foreground
#        bed.sh connect N [SECONDS]      bring client N's tunnel up through the VIP; exit 0 when established
#        bed.sh ping N [ARG...]          three pings through client N's tunnel, or ping with ARGs
#        bed.sh disconnect N             close client N's tunnel and end its daemon
#        bed.sh kill NAME                kill -9 the daemon of v1, c1, ...: nobody is told
#        bed.sh start NAME               start it again (a server serves at once, a client waits for connect)
#        bed.sh rebind N                 the NAT forgets client N's port 4500: its next datagram gets another port
#        bed.sh redial ADDRESS           the NAT gets another address of 10.79.0.0/24, and every client another port
#        bed.sh move N ADDRESS           client N's address changes: to another one of 10.78.N.0/24
#        bed.sh where                    which server holds which client's IKE SA
#        bed.sh down                     end everything that this script started
# env:   BED (state folder, default /tmp/hp-bed), NS (prefix of the namespaces, default hp: another prefix and another
#        BED give a second bed beside the first), VIP (10.77.1.1), FRAGMENTATION=yes|no (IKE fragmentation),
#        NAT=yes|no (all clients behind one address), AUTH=psk|cert (cert: RSA 4096, so that IKE_AUTH exceeds the MTU),
#        PKI (where its keys are made and kept, default $BED/pki); what `up` was given holds for `connect`.
#        PROPOSALS_SERVER / PROPOSALS_CLIENT (IKE proposals, default aes128-sha256-modp2048),
#        RETRANSMIT_TRIES, RETRANSMIT_TIMEOUT, RETRANSMIT_BASE, KEEPALIVE (of the daemons that the call starts),
#        ROUND_TRIP (milliseconds that a client waits before it looks at what has come: as if its server were far away),
#        DPD (after how long without a word from its server a client checks whether it lives; a server does after 30 s)
# needs: root, iproute2, nftables, conntrack, iputils-ping, strongswan-swanctl charon-systemd strongswan-pki
#        libcharon-extra-plugins libstrongswan-standard-plugins libstrongswan-extra-plugins (ESP runs in user space:
#        kernel-libipsec over TUN)
set -euo pipefail
BED=${BED:-/tmp/hp-bed}
NS=${NS:-hp}
given() { # given NAME DEFAULT: sets NAME to what `up` was given, or to the default, if the environment does not say
  local -n value=$1
  [[ -z ${value:-} ]] || return 0
  value=$2
  [[ ! -r $BED/given/$1 ]] || read -r value <"$BED/given/$1"
}
given VIP 10.77.1.1
given FRAGMENTATION yes
given NAT no
given AUTH psk
given PKI "$BED/pki"
PROPOSALS_SERVER=${PROPOSALS_SERVER:-aes128-sha256-modp2048}
PROPOSALS_CLIENT=${PROPOSALS_CLIENT:-aes128-sha256-modp2048}
PLUGINS="random nonce openssl pem pkcs1 pkcs8 x509 pubkey constraints kdf hmac sha1 sha2 aes gcm curve25519
  socket-default kernel-libipsec kernel-netlink vici"
PLUGINS=${PLUGINS//$'\n'/}

SWANCTL_PLUGINS="random nonce openssl pem pkcs1 pkcs8 x509 pubkey" # all that are installed take ten times as long

die() { echo "bed: $*" >&2; exit 1; }
ns() { ip netns exec "$NS-$1" "${@:2}"; }
links() { ip -n "$NS-$1" -batch -; } # links NAME: a command of ip each line

space() { # space NAME: a network namespace whose addresses serve at once
  ip netns add "$NS-$1"
  ns "$1" sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad && exec ip link set lo up'
}

certificates() {
  local d=$PKI name
  [[ -s $d/client.crt ]] && return
  mkdir -p "$d"
  exec 3>&2 2>"$d/log" # pki grumbles about a TPM
  pki --gen --type rsa --size 4096 --outform pem >"$d/ca.key"
  pki --self --ca --lifetime 30 --in "$d/ca.key" --type rsa --dn "CN=bed ca" --outform pem >"$d/ca.crt"
  for name in server client; do
    pki --gen --type rsa --size 4096 --outform pem >"$d/$name.key"
    pki --pub --in "$d/$name.key" --type rsa |
      pki --issue --lifetime 30 --cacert "$d/ca.crt" --cakey "$d/ca.key" --dn "CN=$name.bed" \
        --san "$name.bed" --flag serverAuth --flag ikeIntermediate --outform pem >"$d/$name.crt"
  done
  exec 2>&3 3>&-
}

# daemon NAME: strongswan.conf and a charon of its own in namespace NAME
daemon() {
  local name=$1 d=$BED/$1 round_trip=0 tries
  [[ $name == c* ]] && round_trip=${ROUND_TRIP:-0}
  mkdir -p "$d/swanctl/conf.d" "$d/run"
  # shellcheck disable=SC2153  # `given` sets it
  if [[ $AUTH == cert ]]; then
    mkdir -p "$d/swanctl/x509" "$d/swanctl/x509ca" "$d/swanctl/private"
    cp "$PKI/ca.crt" "$d/swanctl/x509ca/"
    local role=client
    [[ $name == v* ]] && role=server
    cp "$PKI/$role.crt" "$d/swanctl/x509/"
    cp "$PKI/$role.key" "$d/swanctl/private/"
  fi
  cat >"$d/strongswan.conf" <<EOF
charon-systemd {
  load = $PLUGINS
  retransmit_tries = ${RETRANSMIT_TRIES:-2}
  retransmit_timeout = ${RETRANSMIT_TIMEOUT:-1.0}
  retransmit_base = ${RETRANSMIT_BASE:-1.4}
  make_before_break = yes
  fragment_size = ${FRAGMENT_SIZE:-1280}
  keep_alive = ${KEEPALIVE:-20s}
  receive_delay = $round_trip
  plugins {
    vici { socket = unix://$d/run/vici }
    kernel-netlink { fwmark = !0x42 }
    socket-default { fwmark = 0x42 }
    kernel-libipsec { allow_peer_ts = yes }
  }
  filelog { log { path = $d/charon.log
    default = 1
    ike = 2
    net = 1
    time_format = %H:%M:%S
    flush_line = yes } }
}
swanctl {
  load = $SWANCTL_PLUGINS
  socket = unix://$d/run/vici
}
EOF
  ip netns exec "$NS-$name" env STRONGSWAN_CONF="$d/strongswan.conf" SWANCTL_DIR="$d/swanctl" \
    unshare -m bash -c "mount -t tmpfs tmpfs /run && exec /usr/sbin/charon-systemd" >"$d/out" 2>&1 &
  echo $! >"$d/pid"
  for ((tries = 200; tries > 0; tries--)); do
    [[ -S $d/run/vici ]] && return
    sleep 0.05
  done
  die "charon in $name did not start: see $d/out and $d/charon.log"
}

# The pid of a daemon, also of one that has ended; 1: it was never started.
pid_of() { [[ -f $BED/$1/pid ]] && read -r pid <"$BED/$1/pid"; }

running() { # running NAME: is its daemon there? (a zombie that nobody has reaped yet is not)
  local pid
  pid_of "$1" && [[ -e /proc/$pid/exe ]]
}

ended() { # ended NAME SECONDS: waits so long for its end
  local tries
  for ((tries = $2 * 50; tries > 0; tries--)); do
    running "$1" || return 0
    sleep 0.02
  done
  return 1
}

kill_daemon() { # kill_daemon NAME
  local pid
  pid_of "$1"
  kill -9 "$pid"
  ended "$1" 10 || die "$1 does not end"
  rm -rf "${BED:?}/$1/run" "$BED/$1/pid"
}

swan() { # swan NAME ARGS...
  local d=$BED/$1
  ns "$1" env STRONGSWAN_CONF="$d/strongswan.conf" SWANCTL_DIR="$d/swanctl" swanctl "${@:2}" --uri "unix://$d/run/vici"
}

server() {
  local n=$1
  space "v$n"
  links lb <<EOF
link add hpv$n type veth peer name eth0 netns $NS-v$n
link set hpv$n master servers up
EOF
  links "v$n" <<EOF
link set eth0 up
addr add 10.77.2.$((10 + n))/24 dev eth0
addr add 10.98.0.1/32 dev lo
route add default via 10.77.2.1
addr add fd77:2::$((10 + n))/64 dev eth0 nodad
route add default via fd77:2::1
EOF
  start_server "$n"
}

start_server() {
  local n=$1 d=$BED/v$1
  daemon "v$n"
  local auth="local { auth = psk
 id = vpn.bed }
 remote { auth = psk
 id = %any }" secret="secrets { ike { secret = bed-secret } }"
  [[ $AUTH == cert ]] && auth="local { auth = pubkey
 certs = server.crt
 id = server.bed }
 remote { auth = pubkey
 id = %any }" secret=""
  cat >"$d/swanctl/swanctl.conf" <<EOF
connections { vpn {
  version = 2
  encap = yes
  mobike = yes
  fragmentation = $FRAGMENTATION
  proposals = $PROPOSALS_SERVER
  pools = clients
  dpd_delay = 30s
  unique = never
  $auth
  children { net { local_ts = 10.98.0.1/32
    esp_proposals = aes128gcm16 } }
} }
pools { clients { addrs = 10.99.$n.0/24 } }
$secret
EOF
  swan "v$n" --load-all >"$d/load" 2>&1 || die "server $n: $(cat "$d/load")"
}

client_net() { # namespace of client N: 10.78.N.2 behind its own link to hp-lb
  local n=$1
  space "c$n"
  links lb <<EOF
link add hpc$n type veth peer name eth0 netns $NS-c$n
addr add 10.78.$n.1/24 dev hpc$n
link set hpc$n up
addr add fd78:$n::1/64 dev hpc$n nodad
EOF
  links "c$n" <<EOF
link set eth0 up
addr add 10.78.$n.2/24 dev eth0
route add default via 10.78.$n.1
addr add fd78:$n::2/64 dev eth0 nodad
route add default via fd78:$n::1
EOF
}

# A home router: every flow gets a random port of its one address; what comes for no flow is dropped without a word.
nat() {
  space nat
  links lb <<EOF
link add hpnat type veth peer name eth0 netns $NS-nat
addr add 10.79.0.1/24 dev hpnat
link set hpnat up
EOF
  links nat <<EOF
link set eth0 up
addr add 10.79.0.2/24 dev eth0
route add default via 10.79.0.1
link add inside type bridge
link set inside up
addr add 10.80.0.1/16 dev inside
EOF
  ns nat sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
  ns nat nft -f - <<EOF
table ip router {
  chain leave {
    type nat hook postrouting priority 100
    oifname "eth0" masquerade fully-random
  }
  chain arrive {
    type filter hook input priority 0
    iifname "eth0" meta l4proto udp drop
  }
}
EOF
}

natted_client_net() { # namespace of client N: 10.80.0.(10+N) on the bridge of hp-nat
  local n=$1
  space "c$n"
  links nat <<EOF
link add hpc$n type veth peer name eth0 netns $NS-c$n
link set hpc$n master inside up
EOF
  links "c$n" <<EOF
link set eth0 up
addr add 10.80.0.$((10 + n))/16 dev eth0
route add default via 10.80.0.1
EOF
}

rebind() { # rebind N
  ns nat conntrack -D -p udp -s "10.80.0.$((10 + $1))" --dport 4500 >/dev/null 2>&1 ||
    die "the NAT has no mapping of client $1's port 4500"
}

redial() { # redial ADDRESS: masquerade forgets every mapping with the address
  links nat <<EOF
addr flush dev eth0
addr add $1/24 dev eth0
route add default via 10.79.0.1
EOF
}

move() { # move N ADDRESS: both addresses and the way out change at once, as when a network is left for another
  local n=$1 address=$2 old
  old=$(ip -n "$NS-c$n" -o -4 addr show dev eth0 | awk '{ print $4; exit }')
  links "c$n" <<EOF
addr del $old dev eth0
addr add $address/24 dev eth0
route add default via 10.78.$n.1
EOF
}

up() {
  local clients=${1:-4} servers=${2:-3} i
  [[ $EUID == 0 ]] || die "must be root"
  [[ -e $BED/given ]] && die "already up: bed.sh down first"
  [[ -f /usr/lib/ipsec/plugins/libstrongswan-openssl.so ]] ||
    die "strongSwan has no MODP: install libstrongswan-standard-plugins"
  mkdir -p "$BED/given"
  echo "$VIP" >"$BED/given/VIP"
  echo "$AUTH" >"$BED/given/AUTH"
  echo "$PKI" >"$BED/given/PKI"
  echo "$NAT" >"$BED/given/NAT"
  echo "$FRAGMENTATION" >"$BED/given/FRAGMENTATION"
  [[ $AUTH == cert ]] && certificates
  space lb
  links lb <<EOF
link add servers type bridge
link set servers up
addr add 10.77.2.1/24 dev servers
addr add fd77:2::1/64 dev servers nodad
addr add $VIP dev lo
EOF
  ns lb sh -c 'echo 0 >/proc/sys/net/ipv4/ip_forward' # what passes, passes through the balancer
  for i in $(seq "$servers"); do server "$i"; done
  [[ $NAT == yes ]] && nat
  for i in $(seq "$clients"); do
    if [[ $NAT == yes ]]; then natted_client_net "$i"; else client_net "$i"; fi
  done
  echo "bed: up: $clients clients, $servers servers, VIP $VIP"
}

connect() {
  local n=$1 limit=${2:-15} d=$BED/c$1
  if ! running "c$n"; then daemon "c$n"; fi
  local auth="local { auth = psk
 id = client$n }
 remote { auth = psk
 id = vpn.bed }" secret="secrets { ike { secret = bed-secret } }"
  [[ $AUTH == cert ]] && auth="local { auth = pubkey
 certs = client.crt
 id = client.bed }
 remote { auth = pubkey
 id = server.bed }" secret=""
  cat >"$d/swanctl/swanctl.conf" <<EOF
connections { vpn {
  version = 2
  encap = yes
  mobike = yes
  fragmentation = $FRAGMENTATION
  proposals = $PROPOSALS_CLIENT
  remote_addrs = $VIP
  vips = 0.0.0.0
  dpd_delay = ${DPD:-30s}
  $auth
  children { net { remote_ts = 10.98.0.1/32
    esp_proposals = aes128gcm16 } }
} }
$secret
EOF
  swan "c$n" --load-all >"$d/load" 2>&1 || die "client $n: $(cat "$d/load")"
  swan "c$n" --initiate --child net --timeout "$limit" >"$d/initiate" 2>&1 ||
    { echo "bed: client $n: $(tail -n 1 "$d/initiate")" >&2; return 1; }
}

disconnect() {
  local pid
  pid_of "c$1" || return 0
  swan "c$1" --terminate --ike vpn --timeout 3 >/dev/null 2>&1 || true
  kill "$pid" 2>/dev/null || true
  ended "c$1" 3 || kill_daemon "c$1" # the next one needs its ports 500 and 4500
  rm -rf "${BED:?}/c$1"
}

start() { # start NAME
  case $1 in
    v*) start_server "${1#v}" ;;
    *) daemon "$1" ;;
  esac
}

where() {
  local d
  for d in "$BED"/v*; do
    d=${d##*/}
    swan "$d" --list-sas 2>/dev/null | awk -v s="$d" "/remote '/ { print s, \$0 }"
  done
}

down() { # whoever still runs in one of the bed's namespaces is the bed's
  local names name signal pids tries
  mapfile -t names < <(ip netns list | awk -v p="^$NS-" '$1 ~ p { print $1 }')
  for signal in TERM KILL; do
    mapfile -t pids < <(for name in "${names[@]}"; do ip netns pids "$name"; done)
    ((${#pids[@]})) || break
    kill -s "$signal" "${pids[@]}" 2>/dev/null || true
    for ((tries = 50; tries > 0; tries--)); do
      any_of "${pids[@]}" || break
      sleep 0.02
    done
  done
  for name in "${names[@]}"; do ip netns del "$name"; done
  rm -rf "${BED:?}"
}

any_of() { # any_of PID...: does one of them still run?
  local pid
  for pid; do [[ ! -e /proc/$pid/exe ]] || return 0; done
  return 1
}

case ${1:-} in
  up) shift; up "$@" ;;
  lb)
    shift
    ip netns exec "$NS-lb" "$@" >"$BED/lb.out" 2>&1 &
    ;;
  in) shift; ns "$@" ;;
  connect) shift; connect "$@" ;;
  ping)
    n=$2
    shift 2
    [[ $# == 0 ]] && set -- -c 3 -i 0.2 -W 2
    ns "c$n" ping "$@" 10.98.0.1
    ;;
  disconnect) disconnect "$2" ;;
  kill) kill_daemon "$2" ;;
  start) start "$2" ;;
  rebind) rebind "$2" ;;
  redial) redial "$2" ;;
  move) move "$2" "$3" ;;
  where) where ;;
  swan) shift; swan "$@" ;;
  down) down ;;
  *)
    sed -n '3,43p' "$0"
    exit 2
    ;;
esac
