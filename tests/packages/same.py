#!/usr/bin/env python3
"""same.py KUSTOMIZE HELM: status 1 if they make other resources. Names and labels, which each has of its own, do not count."""

import json
import sys

import yaml


def bare(value):
    if isinstance(value, dict):
        return {key: bare(inner) for key, inner in value.items() if key not in ("labels", "matchLabels", "selector")}
    if isinstance(value, list):
        return [bare(inner) for inner in value]
    return "convoke-settings" if str(value).startswith("convoke-settings-") else value


def resources(path):
    with open(path, encoding="utf-8") as file:
        found = {document["kind"]: bare(document) for document in yaml.safe_load_all(file) if document}
    for container in found["Deployment"]["spec"]["template"]["spec"]["containers"]:
        container.pop("imagePullPolicy", None)
    return found


ours, theirs = (resources(path) for path in sys.argv[1:3])
different = [kind for kind in sorted({*ours, *theirs}) if ours.get(kind) != theirs.get(kind)]
for kind in different:
    print(kind, json.dumps(ours.get(kind)), json.dumps(theirs.get(kind)), sep="\n")
sys.exit(bool(different))
