# SPDX-License-Identifier: Apache-2.0
"""The same load against nginx stream, as a yardstick: what its users notice of a killed worker and of a reload."""
import os
import pathlib
import shutil
import signal
import subprocess
import time

from field import Field, clean
from homeport import wait_for
from prove import Claims, Row, Skipped

MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
WORKERS = 4
CONFIG = """\
load_module {module};
daemon off;
user nobody nogroup;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
worker_processes {workers};
worker_rlimit_nofile 20000;
events {{ worker_connections 40000; }}
stream {{
    upstream ike {{ hash $remote_addr; {ike} }}
    upstream natt {{ hash $remote_addr; {natt} }}
    server {{ listen {vip}:500 udp reuseport rcvbuf=4m sndbuf=4m; proxy_pass ike; proxy_timeout 2h; }}
    server {{ listen {vip}:4500 udp reuseport rcvbuf=4m sndbuf=4m; proxy_pass natt; proxy_timeout 2h; }}
}}
"""


def config_write(field):
    path = os.path.join(field.folder, "nginx.conf")
    servers = {port: " ".join(f"server {address}:{port};" for address in field.addresses.values()) for port in (500, 4500)}
    pathlib.Path(path).write_text(CONFIG.format(module=MODULE, folder=field.folder, vip=field.vip, workers=WORKERS,
                                                ike=servers[500], natt=servers[4500]), encoding="ascii")
    return path


def workers_of(process):
    path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(one) for one in path.read_text(encoding="ascii").split()]


def end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        for pid in [*workers_of(process), process.pid]:
            os.kill(pid, signal.SIGKILL)
        process.wait()


def noticed(claims, field, name, act):
    """What becomes of the flows when this happens to nginx under load, each of which speaks twice and more."""
    load, sink = field.boards["load"], field.boards["sink"]
    field.settle()
    before = [load.sent - load.answered, sink.moved, sink.port_changed]
    rate = field.context.rate()
    field.talk(rate)
    time.sleep(1)  # of the load
    act()
    time.sleep(5 * field.count / rate)
    field.settle()
    after = [load.sent - load.answered, sink.moved, sink.port_changed]
    lost, moved, ports = (now - then for now, then in zip(after, before))
    claims.figure(name, f"{lost} datagrams lost, {moved} flows moved, {ports} source ports changed, of "
                  f"{2 * field.count} flows")


def kill_one(field, process):
    before = workers_of(process)
    os.kill(field.random.choice(before), signal.SIGKILL)
    wait_for(lambda: [pid for pid in workers_of(process) if pid not in before], 10, "a new worker of nginx")


def reload(process):
    before = workers_of(process)
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: len([pid for pid in workers_of(process) if pid not in before]) == WORKERS, 20,
             "the new workers of nginx")


def run(context):
    if shutil.which("nginx") is None or not os.path.exists(MODULE):
        raise Skipped("nginx or its stream module is missing: apt-get install nginx-core libnginx-mod-stream")
    claims = Claims()
    with Field(context, 2500 if context.short else 25000) as field:
        pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("1024 65000", encoding="ascii")  # of here
        field.servers_up()
        process = subprocess.Popen(["nginx", "-e", f"{field.folder}/error.log", "-c", config_write(field)],
                                   stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: len(workers_of(process)) == WORKERS, 10, "nginx")
            field.clients_up()
            field.connect()
            noticed(claims, field, "nothing happens", lambda: None)
            noticed(claims, field, "kill -9 of one of four workers", lambda: kill_one(field, process))
            noticed(claims, field, "reload", lambda: reload(process))
        finally:
            end(process)
            shutil.copyfile(f"{field.folder}/error.log", context.logs / "nginx.log")
        clean(claims, field)
    return claims.done()


ROWS = [Row("nginx", "A yardstick, not a promise: what the clients of nginx stream notice of the same events", run)]
