#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""No include points upwards, nor sideways: cli -> process -> {monitor, relay} -> plugin -> pool ->
{segment, config, ike} -> base. The SDK lies below all and includes nothing of the core; plugins and examples see it alone."""
import re

import lint

RANKS = {"base": 0, "segment": 1, "config": 1, "ike": 1, "pool": 2, "plugin": 3, "relay": 4, "monitor": 4, "process": 5,
         "cli": 6}
BESIDE = {("config", "segment/layout.h")}  # a server's states are one enum, written in YAML and held in the segment
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')
ORDER = "cli > process > monitor, relay > plugin > pool > segment, config, ike > base"


def wrong(root, path, quote, name):
    """Why this file may not include this, or None."""
    top, layer = path.relative_to(root).parts[:2]
    if name.startswith("homeport/"):
        return None if quote == "<" else "the SDK is included as <homeport/...>"
    if quote == "<":
        return "of the core: use quotes" if name.split("/")[0] in RANKS and "/" in name else None
    if ".." in name:
        return 'includes are "layer/file.h", from core/'
    if "/" not in name:
        return None if (path.parent / name).is_file() else "is not in this folder"
    if top != "core":
        return None if (path.parent / name).is_file() else "only the SDK may be seen from here"
    target = name.split("/")[0]
    if target not in RANKS:
        return f"is of no known layer ({ORDER})"
    if layer not in RANKS:
        return f"{layer} is no known layer ({ORDER})"
    if target != layer and RANKS[target] >= RANKS[layer] and (layer, name) not in BESIDE:
        return f"{layer} may not see {target} ({ORDER})"
    return None


def problems(root):
    for path in lint.sources(root, ["core", "plugins", "sdk", "examples"], {".c", ".h", ".cc"}):
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            match = INCLUDE.match(line)
            reason = match and wrong(root, path, match[1], match[2])
            if reason:
                yield f"{path.relative_to(root)}:{number}: {match[2]}: {reason}"


if __name__ == "__main__":
    lint.main(problems)
