#!/usr/bin/env python3
"""Writes the table of Kubernetes' built-in kinds that `burgee check` reads.

The table is made from Kubernetes' own OpenAPI (`api/openapi-spec/v3` of the Go
module k8s.io/kubernetes), and the values of enumerations from the Go types of
k8s.io/api, which the published OpenAPI leaves out. Both are Apache-2.0,
copyright The Kubernetes Authors. How the table is written: see its reader,
fleet/src/kubernetes/schema/table.rs.

    KUBERNETES=1.34.4 cli/schema/generate.py > cli/src/kubernetes/table.txt

needs Go, for the modules:  tests/cluster/go.mod pins the same version.
"""

import glob
import json
import os
import re
import subprocess
import sys

VERSION = os.environ.get("KUBERNETES", "1.34.4")
MINOR = VERSION.split(".", 1)[1]
PREFIX = "io.k8s."
SHORT = [
    ("io.k8s.apimachinery.pkg.apis.meta.v1.", "meta.v1."),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.", "apiextensions."),
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.", "apiregistration."),
    ("io.k8s.api.", ""),
]
# Types with a form of their own, or with any.
SPECIAL = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "x",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "q",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "t",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "t",
}


def module(name, version):
    """The folder of a Go module, downloaded where it is not there yet."""
    answer = subprocess.run(
        ["go", "mod", "download", "-json", f"{name}@{version}"],
        env={**os.environ, "GOFLAGS": "-mod=mod", "GOWORK": "off"},
        cwd="/",
        check=True,
        capture_output=True,
    )
    return json.loads(answer.stdout)["Dir"]


def short(name):
    for long, brief in SHORT:
        if name.startswith(long):
            return brief + name[len(long):]
    return name.removeprefix(PREFIX)


def read_specs(folder):
    """All types by name, and all kinds that can be created, with their scope."""
    types, kinds = {}, {}
    for file in sorted(glob.glob(f"{folder}/api/openapi-spec/v3/api*__*_openapi.json")):
        with open(file, encoding="utf-8") as handle:
            spec = json.load(handle)
        types.update(spec["components"]["schemas"])
        for path, methods in spec["paths"].items():
            post = methods.get("post")
            # Below a name are only subresources: a binding, a scale, a token.
            if not post or "{name}" in path:
                continue
            names = post["x-kubernetes-group-version-kind"]
            body = next(iter(post["requestBody"]["content"].values()))["schema"]
            api = "/".join(part for part in (names["group"], names["version"]) if part)
            scope = "namespaced" if "/namespaces/{namespace}/" in path else "cluster"
            kinds.setdefault((api, names["kind"]), (scope, body["$ref"].rsplit("/", 1)[1]))
            if scope == "namespaced":
                kinds[api, names["kind"]] = (scope, body["$ref"].rsplit("/", 1)[1])
    return types, kinds


def read_enums(folder):
    """(type, field) → values, from the Go types that are marked `+enum`."""
    enums, fields, partly = {}, [], set()
    files = {file: os.path.relpath(os.path.dirname(file), folder).replace("/", ".")
             for file in glob.glob(f"{folder}/*/*/types*.go")}
    for file, package in sorted(files.items()):
        with open(file, encoding="utf-8") as handle:
            text = handle.read()
        imports = {alias: path.replace("/", ".") for alias, path in
                   re.findall(r'^\s*(\w+)\s+"k8s\.io/api/([\w/]+)"', text, re.M)}
        marked = set(re.findall(r"// \+enum\n(?:// .*\n)*type (\w+) string", text))
        typed = re.findall(r'^\s*\w+\s+(\w+)\s*=\s*"([^"]*)"', text, re.M)
        cast = re.findall(r'^\s*\w+\s*=\s*(\w+)\("([^"]*)"\)', text, re.M)
        for kind, value in typed + cast:
            if kind in marked:
                enums.setdefault(f"{package}.{kind}", []).append(value)
        # A value that is another constant: not all of them are known here.
        partly.update(f"{package}.{kind}" for kind in re.findall(r"=\s*(\w+)\((?!\")", text))
        for struct, body in re.findall(r"^type (\w+) struct \{\n(.*?)^\}", text, re.M | re.S):
            for kind, name in re.findall(r'^\s*\w+\s+(?:\[\]|\*)*([\w.]+)\s+`json:"([\w]+)', body, re.M):
                alias, _, plain = kind.rpartition(".")
                fields.append((f"{package}.{struct}", name, f"{imports.get(alias, package)}.{plain}"))
    return {(struct, name): sorted(set(enums[kind])) for struct, name, kind in fields
            if kind in enums and kind not in partly}


def written(schema, enum, reached):
    """A schema in the words of the table."""
    if "allOf" in schema:
        schema = schema["allOf"][0]
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name in SPECIAL:
            return SPECIAL[name]
        reached.append(name)
        return "@" + short(name)
    kind, form = schema.get("type"), schema.get("format")
    if kind == "array":
        return "[" + written(schema["items"], enum, reached)
    if kind == "object":
        values = schema.get("additionalProperties")
        return "{" + written(values, enum, reached) if isinstance(values, dict) else "o"
    if kind == "string":
        if form == "byte":
            return "y"
        return "=" + "|".join(enum) if enum else "s"
    if kind == "integer":
        return "i32" if form == "int32" else "i"
    return {"number": "n", "boolean": "b", None: "*"}[kind]


def main():
    types, kinds = read_specs(module("k8s.io/kubernetes", "v" + VERSION))
    enums = read_enums(module("k8s.io/api", "v0." + MINOR))
    out = [
        f"# Kubernetes {VERSION}, made by cli/schema/generate.py from its OpenAPI and k8s.io/api.",
        "# Copyright The Kubernetes Authors. Licensed under the Apache License, Version 2.0.",
        f"version v{VERSION}",
    ]
    waiting = []
    for (api, kind), (scope, name) in sorted(kinds.items()):
        out.append(f"kind {api} {kind} {scope} {short(name)}")
        waiting.append(name)
    tops, done = set(waiting), set()
    lines = []
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        schema = types[name]
        if "properties" not in schema:
            lines.append((short(name), "o" if schema.get("type") == "object" else "*"))
            continue
        required = set(schema.get("required", []))
        fields = []
        for field, value in sorted(schema["properties"].items()):
            # What a server writes is not read from a manifest.
            if name in tops and field == "status":
                fields.append("status *")
                continue
            mark = "!" if field in required else ""
            fields.append(f"{field}{mark} {written(value, enums.get((short(name), field)), waiting)}")
        lines.append((short(name), None, fields))
    for line in sorted(lines):
        if line[1]:
            out.append(f"type {line[0]} {line[1]}")
        else:
            out.append(f"type {line[0]}")
            out.extend(" " + field for field in line[2])
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
