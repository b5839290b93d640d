#!/usr/bin/env python3
"""Makes cases of injection by a seed, and has Istio's istioctl say what is expected of each.

  cases.py ISTIOCTL FOLDER [--seed N] [--installations N] [--documents N] [--expressions FILE]

FOLDER gets a folder for each case, in the format that `meltemi kube-inject --case` plays: installations of random values and mesh
configuration, documents with random annotations, probes and containers, some of them wrong, some injected a second time, some by
Istio's own template under another name; and one case for each line of FILE, an expression that a template writes into an
annotation. What istioctl refuses is a case that expects an error. The exit code is 2 for wrong usage, 1 where istioctl cannot be run.
"""
import argparse
import json
import os
import pathlib
import random
import re
import subprocess
import sys

import yaml

import choices

# Istio's images are named so by both.
IMAGES = {"hub": "registry.istio.io/testing", "tag": "latest"}
# Of values, what only a webhook heeds: istioctl is asked without one.
OF_WEBHOOK = ("neverInjectSelector", "alwaysInjectSelector")
FOREIGN = "foreign"
# Documents of which a webhook makes something else, in Istio as here: pods of a CronJob, of a namespace that is never injected,
# and where a pod says another status port, which a webhook does not take for the mesh's.
FOR_FILES_ALONE = re.compile(r'"CronJob"|"kube-system"|statusPort')
OVERRIDDEN = re.compile(r'"name": "istio-(proxy|init)"|proxy.istio.io/overrides|gateway , sidecar')
# Istio's template gives an agent of gRPC without a status port neither mounts nor resources.
WITHOUT_STATUS = re.compile(r'status.sidecar.istio.io/port": "0"')
# A variable of 1.31's, which Istio took away again.
GONE = re.compile(r"^ *- name: GOMAXPROCS\n(?: +\S.*\n){4}", re.MULTILINE)


class Refused(Exception):
    """istioctl's own words."""


class Istioctl:
    """Istio's program, for one installation."""

    def __init__(self, program, work):
        self.program, self.work, self.config = program, work, None

    def run(self, arguments, features=None):
        done = subprocess.run([self.program, *arguments], capture_output=True, text=True, env={**os.environ, **(features or {})})
        if done.returncode != 0:
            raise Refused(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason")
        return done.stdout

    def install(self, operator):
        """Leaves what a cluster would hold in files: the injector's configuration and values, and the mesh's configuration."""
        document = self.work / "operator.yaml"
        document.write_text(json.dumps(operator))
        flags = ["--set", "profile=empty", "--set", "components.pilot.enabled=true", "--force"]
        text = self.run(["manifest", "generate", "-f", str(document), *flags])
        # Warnings come first, in the same stream.
        text = text[text.index("apiVersion:"):]
        maps = {}
        for manifest in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if manifest and manifest["kind"] == "ConfigMap":
                maps[manifest["metadata"]["name"]] = manifest["data"]
        suffix = operator["spec"].get("revision", "")
        suffix = f"-{suffix}" if suffix else ""
        injector = maps[f"istio-sidecar-injector{suffix}"]
        self.config = yaml.safe_load(injector["config"])
        self.config["templates"] = {name: GONE.sub("", text) for name, text in self.config["templates"].items()}
        self.config["templates"][FOREIGN] = self.config["templates"]["sidecar"]
        (self.work / "values").write_text(injector["values"])
        (self.work / "mesh").write_text(maps[f"istio{suffix}"]["mesh"])

    def inject(self, documents, features, templates):
        """What comes of each document; of all, an exception if one is refused."""
        config = {**self.config, "templates": {**self.config["templates"], **templates}}
        (self.work / "config").write_text(json.dumps(config))
        (self.work / "input").write_text("---\n".join(documents))
        files = [word for name in ("config", "values", "mesh") for word in (f"--{FLAGS[name]}File", str(self.work / name))]
        # With a revision no cluster is asked for one.
        text = self.run(["kube-inject", "-r", "default", "-f", str(self.work / "input"), *files], features)
        parts = text.split("---\n")[: len(documents)]
        if len(parts) != len(documents):
            raise Refused(f"{len(parts)} documents came of {len(documents)}")
        return parts


FLAGS = {"config": "injectConfig", "values": "values", "mesh": "meshConfig"}


class Cases:
    def __init__(self, folder):
        self.folder, self.count, self.errors = folder, 0, 0

    def write(self, name, case, operator, document, expected, error):
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        case = {"name": name, "input": "input.yaml", "operator_file": "operator.yaml", **case}
        if error is None:
            case["expected"] = "expected.yaml"
            (folder / "expected.yaml").write_text(expected)
        else:
            # In words of its own: that there is one is what counts.
            case["expected_error"] = ""
            (folder / "istioctl.txt").write_text(error + "\n")
            self.errors += 1
        (folder / "case.yaml").write_text(json.dumps(case, indent=1))
        (folder / "operator.yaml").write_text(json.dumps(operator, indent=1))
        (folder / "input.yaml").write_text(document)
        self.count += 1


def each(istioctl, documents, features, templates):
    """Pairs of result and error, one for each document."""
    try:
        return [(result, None) for result in istioctl.inject(documents, features, templates)]
    except Refused as error:
        if len(documents) == 1:
            return [(None, str(error))]
    middle = len(documents) // 2
    return each(istioctl, documents[:middle], features, templates) + each(istioctl, documents[middle:], features, templates)


def play(istioctl, cases, prefix, operator, documents, features, case, templates):
    """Writes a case for each of the documents, and for some of them one of what has come of it."""
    values = operator["spec"]["values"]
    webhook = {**values.get("sidecarInjectorWebhook", {}), "templates": templates}
    operator = {**operator, "spec": {**operator["spec"], "values": {**values, "sidecarInjectorWebhook": webhook}}}
    texts = [json.dumps(document, indent=1) + "\n" for document in documents]
    again = []
    for number, (text, (expected, error)) in enumerate(zip(texts, each(istioctl, texts, features, templates))):
        own = {**case, "skip_webhook": True} if FOR_FILES_ALONE.search(text) else case
        name = f"{prefix}-{number:02}"
        cases.write(name, own, operator, text, expected, error)
        # What users say of our containers stays in force a second time; Istio forgets it, or has the proxy twice.
        if error is None and number % 4 == 0 and len(documents) > 1 and not OVERRIDDEN.search(text):
            again.append((f"{name}-again", own, expected))
    if again:
        results = each(istioctl, [text for _, _, text in again], features, templates)
        for (name, own, text), (expected, error) in zip(again, results):
            cases.write(name, own, operator, text, expected, error)


def is_judged(text, has_status):
    return "grpc-agent" not in text or has_status and not WITHOUT_STATUS.search(text)


def play_installation(istioctl, cases, seed, number, count):
    chance = random.Random(f"{seed}/{number}")
    spec = {**IMAGES, **choices.installation(chance)}
    documents = [choices.document(chance, FOREIGN) for _ in range(count)]
    has_status = spec["values"].get("global", {}).get("proxy", {}).get("statusPort") != 0
    documents = [document for document in documents if is_judged(json.dumps(document), has_status)]
    features = choices.features(chance)
    values = spec["values"]
    heeded = any(values.get("sidecarInjectorWebhook", {}).get(field) for field in OF_WEBHOOK)
    heeded = heeded or values.get("global", {}).get("proxy", {}).get("autoInject") == "disabled"
    operator = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": spec}
    try:
        istioctl.install(operator)
    except Refused as error:
        print(f"installation {number} is refused: {error}", file=sys.stderr)
        return
    case = {"features": features, "skip_webhook": heeded}
    foreign = {FOREIGN: istioctl.config["templates"][FOREIGN]}
    play(istioctl, cases, f"{seed}-{number:02}", operator, documents, features, case, foreign)


def play_expressions(istioctl, cases, lines):
    operator = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": {**IMAGES, "values": {}}}
    istioctl.install(operator)
    features = {"ENABLE_NATIVE_SIDECARS": "false"}
    for number, line in enumerate(lines):
        templates = {"custom": choices.template(line)}
        case = {"features": features, "skip_webhook": True}
        play(istioctl, cases, f"expression-{number:03}", operator, [choices.plain("custom")], features, case, templates)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("istioctl")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--installations", type=int, default=10)
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--expressions", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    work = arguments.folder / ".work"
    work.mkdir(exist_ok=True)
    istioctl, cases = Istioctl(arguments.istioctl, work), Cases(arguments.folder)
    for number in range(arguments.installations):
        play_installation(istioctl, cases, arguments.seed, number, arguments.documents)
    if arguments.expressions:
        lines = arguments.expressions.read_text().splitlines()
        play_expressions(istioctl, cases, [line for line in lines if line and not line.startswith("#")])
    print(f"{cases.count} cases, of which {cases.errors} expect an error")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"cases: {error}")
