"""Writes an image as a tar that is an OCI layout and a docker archive at once. The same files give the same bytes.

    oci.py --name NAME:TAG --output FILE [--env NAME=VALUE] -- FILES...        (as files.py has them)
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

from files import entries

TIME = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
MAX_BYTES = 40 * 1000 * 1000
USER = 1337


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def member(name, kind, mode):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, TIME
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def layer(files):
    """The one layer: folders, files, links, and users for those who look them up."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folders = {"etc", "tmp"}
        for destination, _, _ in files:
            parts = destination.split("/")[:-1]
            folders.update("/".join(parts[: index + 1]) for index in range(len(parts)))
        for folder in sorted(folders):
            tar.addfile(member(folder, tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755))
        users = f"root:x:0:0:root:/:/meltemi\nmeltemi:x:{USER}:{USER}:meltemi:/:/meltemi\n".encode()
        for name, data in [("etc/passwd", users), ("etc/group", f"root:x:0:\nmeltemi:x:{USER}:\n".encode())]:
            info = member(name, tarfile.REGTYPE, 0o644)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for destination, source, target in files:
            if target is not None:
                info = member(destination, tarfile.SYMTYPE, 0o777)
                info.linkname = target
                tar.addfile(info)
                continue
            with open(source, "rb") as file:
                data = file.read()
            info = member(destination, tarfile.REGTYPE, 0o755 if os.access(source, os.X_OK) else 0o644)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def image(name, files, environment):
    """The files of the layout, by path."""
    plain = layer(files)
    packed = gzip.compress(plain, compresslevel=9, mtime=0)
    created = subprocess.run(["date", "-u", "-d", f"@{TIME}", "+%Y-%m-%dT%H:%M:%SZ"], capture_output=True, text=True, check=True)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": created.stdout.strip(),
        "config": {
            "Entrypoint": ["/meltemi"],
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin:/", *environment],
            "User": f"{USER}:{USER}",
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": "Meltemi", "org.opencontainers.image.licenses": "Apache-2.0"},
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(plain)]},
    }
    config = json.dumps(config, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": len(config)},
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(packed), "size": len(packed)}
        ],
    }
    manifest = json.dumps(manifest, sort_keys=True).encode()
    full = name if "/" in name and "." in name.split("/")[0] else f"docker.io/{name}"
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(manifest),
                "size": len(manifest),
                "annotations": {
                    "io.containerd.image.name": full,
                    "org.opencontainers.image.ref.name": name.rpartition(":")[2],
                },
            }
        ],
    }
    blob = lambda data: "blobs/sha256/" + hashlib.sha256(data).hexdigest()
    docker = [{"Config": blob(config), "RepoTags": [name], "Layers": [blob(packed)]}]
    return {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps(index, sort_keys=True).encode(),
        "manifest.json": json.dumps(docker, sort_keys=True).encode(),
        blob(config): config,
        blob(manifest): manifest,
        blob(packed): packed,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("files", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    wanted = [argument for argument in arguments.files if argument != "--"]
    layout = image(arguments.name, entries(wanted), arguments.env)
    with tarfile.open(arguments.output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, data in layout.items():
            info = member(path, tarfile.REGTYPE, 0o644)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    size = os.path.getsize(arguments.output)
    print(f"{arguments.output}: {arguments.name}, {size / 1e6:.1f} MB")
    if size > MAX_BYTES:
        sys.exit(f"the image is larger than {MAX_BYTES / 1e6:.0f} MB")


main()
