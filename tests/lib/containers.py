# SPDX-License-Identifier: Apache-2.0
"""The image of ./dev image, and containers of it as a user runs them.

Podman gets a storage, a mount namespace and a /run of its own, so that neither images nor containers nor files of this
machine are touched, and nothing stays; its "host" network is the network namespace of who calls (netns.own_net). Needs
root."""
import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
import uuid

import homeport
from homeport import ROOT, Daemon, close_behind, wait_for

BASE = "localhost/homeport-base:bookworm"
CAPABILITIES = ("NET_BIND_SERVICE", "SETUID", "SETGID", "KILL")
HYBRID = "/sys/fs/cgroup/unified"  # crun does not take this mixture of both cgroup versions


def mount_namespace():
    """A process that holds one: with a /run of its own."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"if [ -e {HYBRID} ]; then umount {HYBRID}; fi && "
         "mount -t tmpfs -o mode=0755 none /run && echo ready && read end"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if holder.stdout.readline() != "ready\n":
        raise OSError("cannot make a mount namespace with a /run of its own")
    return holder


class Podman:
    """folder: everything that podman keeps. prefix(): what a command needs before it to run with it."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="homeport-podman-")
        os.chmod(self.folder, 0o755)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # podman's own defaults are more than some roots may set
        limits = [f"nofile={files}:{files}", "nproc=4096:4096"]
        containers, storage = os.path.join(self.folder, "containers.conf"), os.path.join(self.folder, "storage.conf")
        with open(containers, "w", encoding="utf-8") as file:
            file.write(f"[containers]\ndefault_ulimits = {json.dumps(limits)}\n"
                       '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
        with open(storage, "w", encoding="utf-8") as file:
            file.write(f'[storage]\ndriver = "overlay"\ngraphroot = "{self.folder}/graph"\nrunroot = "{self.folder}/run"\n')
        self.variables = [f"CONTAINERS_CONF={containers}", f"CONTAINERS_STORAGE_CONF={storage}", f"BASE={BASE}"]
        self.holder = mount_namespace()

    def prefix(self, folder="/"):
        return ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "env", f"--chdir={folder}", *self.variables]

    def run(self, *command, timeout=60, status=0, folder="/"):
        """Any command, with podman as set up here. Checks the exit status (None: any); returns the whole result."""
        result = subprocess.run([*self.prefix(folder), *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=timeout, check=False, errors="replace")
        assert status is None or result.returncode == status, \
            f"{command} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
        return result

    def podman(self, *arguments, **more):
        return self.run("podman", *arguments, **more).stdout.strip()

    def build(self):
        self.run(os.path.join(ROOT, "dev"), "image", timeout=900, folder=ROOT)

    def close(self):
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.podman("rm", "-fa", "-t", "0")
        if os.path.exists(HYBRID):  # here podman makes its control groups by itself, and leaves the parent
            self.run("find", "/sys/fs/cgroup", "-depth", "-path", "*/libpod_parent*", "-type", "d", "-exec", "rmdir", "{}",
                     ";", status=None)
        self.holder.stdin.close()
        self.holder.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


class Container(Daemon):
    """homeport run in a container, attached: its log is the daemon's. options: of podman run."""

    def __init__(self, podman, *run_options):
        self.podman, self.name = podman, f"homeport-{uuid.uuid4().hex[:8]}"
        super().__init__("/etc/homeport/homeport.yaml", prefix=podman.prefix(),
                         command=["podman", "run", "--name", self.name, *run_options, "homeport"])

    def cli(self, verb, *arguments, json=True, status=0):
        return homeport.cli(verb, *arguments, json=json, status=status,
                            command=[*self.podman.prefix(), "podman", "exec", self.name, "/usr/bin/homeport"])

    def init(self):
        """The pid of the container's process 1, seen from outside."""
        return int(self.podman.podman("inspect", "-f", "{{.State.Pid}}", self.name))

    def children(self, role=None):
        master = self.init()
        return sorted(pid for pid, fields, command in homeport.processes()
                      if int(fields[1]) == master and (role is None or role in command))

    def healthy(self):
        return self.podman.run("podman", "healthcheck", "run", self.name, status=None).returncode == 0

    def alive(self):
        """Processes of the container."""
        return self.children() if self.running() else []

    def running(self):
        return self.podman.podman("inspect", "-f", "{{.State.Running}}", self.name) == "true"

    def stop(self, timeout=10.0, status=0):
        """podman stop: SIGTERM, SIGKILL after 10 s. Checks that it ended in order, and removes the container."""
        if self.podman.run("podman", "container", "exists", self.name, status=None).returncode != 0:
            return
        self.podman.podman("stop", self.name)
        ended = int(self.podman.podman("inspect", "-f", "{{.State.ExitCode}}", self.name))
        self.abandon()
        assert ended == status, f"exit status {ended}, not {status}; the log was:\n{self.log()}"

    def abandon(self):
        self.podman.run("podman", "rm", "-f", "-t", "0", self.name, status=None)
        self.process.wait(20)
        close_behind(self.reader, self.process.stderr)


def make_etc(site):
    """The folder that becomes /etc/homeport; the site's configuration is in it."""
    site.etc = os.path.join(site.folder, "etc")
    os.mkdir(site.etc, 0o755)
    site.path = os.path.join(site.etc, "homeport.yaml")


def for_image(config):
    """Without what the image has by default."""
    return {key: value for key, value in config.items() if key not in ("state", "plugin_path", "user")}


def options(site, *more, capabilities=CAPABILITIES, state=None, config=None):
    """As docs/container.md runs it, with this site's configuration and state. state: another folder, False: none."""
    mounts = ["--volume", f"{config or site.etc}:/etc/homeport:ro"]
    if state is not False:
        state = state or os.path.join(site.folder, "state")
        os.makedirs(state, mode=0o750, exist_ok=True)
        mounts += ["--volume", f"{state}:/run/homeport"]
    return ["--network=host", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all", *(f"--cap-add={one}" for one in capabilities),
            "--security-opt=no-new-privileges", *mounts, *more]


def refused(podman, run_options, *words):
    """homeport in a container ends with status 1 and with one line that has all the words, cause and next step."""
    result = podman.run("podman", "run", "--rm", *run_options, "homeport", status=None, timeout=30)
    assert result.returncode == 1, f"status {result.returncode}:\n{result.stderr}"
    errors = [line for line in result.stderr.splitlines() if re.search(r"(^homeport .*|:\d+: )error: ", line)
              and not line.endswith("error: the configuration has errors")]
    assert len(errors) == 1 and all(word in errors[0] for word in (*words, "; ")), \
        f"not one line with {words} and a next step:\n{result.stderr}"
    return errors[0]


def await_dead(pids):
    wait_for(lambda: not [pid for pid in pids if os.path.exists(f"/proc/{pid}")], what="the end of all processes")
