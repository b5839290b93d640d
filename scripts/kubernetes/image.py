#!/usr/bin/env python3
"""Write a container image (docker-archive tar, one layer) from local files.

    image.py -o x.tar NAME:TAG ENTRYPOINT_JSON DST=SRC [DST=SRC ...]

DST is a path in the image. SRC is a file (mode kept), a directory (taken with
all that is in it) or "->TARGET", a symbolic link. A static binary needs nothing
else; for a dynamic one --libs adds its loader and libraries, as ldd names them.
NAME is completed as a container runtime would (app:1 is
docker.io/library/app:1), so give images the very names that manifests use and
nothing is ever pulled. The same input gives the same image, byte for byte.

    image.py -o echo.tar registry.test/echo:1 '["/echo"]' echo=target/echo
    image.py -o init.tar --libs local/init:1 '["/bin/sh"]' \\
        bin/busybox=/bin/busybox 'bin/sh=->busybox' usr/sbin/=/usr/sbin/xtables-nft-multi
"""
import argparse
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile


def full_name(name):
    """The reference a runtime makes of NAME[:TAG]."""
    first, slash, _ = name.partition("/")
    if not slash:
        name = "docker.io/library/" + name
    elif not ("." in first or ":" in first or first == "localhost"):
        name = "docker.io/" + name
    return name if ":" in name.rsplit("/", 1)[1] else name + ":latest"


def libraries(path):
    """Paths of the loader and shared libraries of a dynamic program; [] if static."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True)
    return re.findall(r"(/\S+) \(0x", done.stdout) if done.returncode == 0 else []


def plan(pairs, libs):
    """{path in image: source} for the DST=SRC arguments."""
    files = {}
    for pair in pairs:
        dst, eq, src = pair.partition("=")
        if not eq or not src:
            sys.exit(f"mkimg: {pair!r} is not DST=SRC")
        if dst.endswith("/"):
            dst += os.path.basename(src)
        dst = dst.strip("/")
        if src.startswith("->"):
            files[dst] = src
        elif os.path.isdir(src):
            for top, dirs, names in os.walk(src):
                for name in names + dirs:
                    full = os.path.join(top, name)
                    if os.path.islink(full):
                        files[os.path.join(dst, os.path.relpath(full, src))] = "->" + os.readlink(full)
                    elif os.path.isfile(full):
                        files[os.path.join(dst, os.path.relpath(full, src))] = full
        elif os.path.isfile(src):
            files[dst] = src
        else:
            sys.exit(f"mkimg: no such file: {src}")
    if libs:
        for src in list(files.values()):
            for lib in libraries(src) if not src.startswith("->") else []:
                files.setdefault(lib.strip("/"), os.path.realpath(lib))
    return files


def entry(name, kind=tarfile.REGTYPE, mode=0o755):
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, mode
    return info


def write_layer(out, files):
    with tarfile.open(fileobj=out, mode="w") as tar:
        made = {"tmp"}
        tar.addfile(entry("tmp", tarfile.DIRTYPE, 0o1777))
        for dst in sorted(files):
            parts = dst.split("/")[:-1]
            for n in range(1, len(parts) + 1):
                parent = "/".join(parts[:n])
                if parent not in made:
                    made.add(parent)
                    tar.addfile(entry(parent, tarfile.DIRTYPE))
            src = files[dst]
            if src.startswith("->"):
                info = entry(dst, tarfile.SYMTYPE)
                info.linkname = src[2:]
                tar.addfile(info)
                continue
            with open(src, "rb") as data:
                info = entry(dst, mode=os.stat(src).st_mode & 0o7777)
                info.size = os.stat(src).st_size
                tar.addfile(info, data)


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-o", "--out", required=True, help="tar to write")
    ap.add_argument("--libs", action="store_true", help="add shared libraries of dynamic binaries")
    ap.add_argument("--env", action="append", default=[], metavar="K=V")
    ap.add_argument("--user", default="", help="uid[:gid] to run as")
    ap.add_argument("--arch", default="amd64")
    ap.add_argument("name", help="NAME:TAG")
    ap.add_argument("entrypoint", help='JSON list, such as ["/echo","--port=80"]')
    ap.add_argument("files", nargs="*", metavar="DST=SRC")
    args = ap.parse_args()
    try:
        entrypoint = json.loads(args.entrypoint)
    except ValueError as err:
        sys.exit(f"mkimg: ENTRYPOINT_JSON: {err}")
    if not isinstance(entrypoint, list) or not all(isinstance(a, str) for a in entrypoint):
        sys.exit("mkimg: ENTRYPOINT_JSON must be a JSON list of strings")

    with tempfile.TemporaryFile() as layer:
        write_layer(layer, plan(args.files, args.libs))
        layer.seek(0)
        digest = hashlib.sha256()
        while block := layer.read(1 << 20):
            digest.update(block)
        config = json.dumps({
            "architecture": args.arch,
            "os": "linux",
            "config": {
                "Entrypoint": entrypoint,
                "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] + args.env,
                "User": args.user,
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest.hexdigest()]},
        }).encode()
        config_name = hashlib.sha256(config).hexdigest() + ".json"
        manifest = json.dumps([{
            "Config": config_name,
            "RepoTags": [full_name(args.name)],
            "Layers": ["layer.tar"],
        }]).encode()
        with tarfile.open(args.out, "w") as tar:
            for name, data in ((config_name, config), ("manifest.json", manifest)):
                info = entry(name, mode=0o644)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            info = entry("layer.tar", mode=0o644)
            info.size = layer.seek(0, os.SEEK_END)
            layer.seek(0)
            tar.addfile(info, layer)
    print(full_name(args.name))


if __name__ == "__main__":
    main()
