"""What Kubernetes and KubeRay take, as far as the files in cluster/ use it: field names and types, for a check offline.

Written after KubeRay's API reference for ray.io/v1 (1.5) and Kubernetes' for 1.34. A field that is not here is a fault,
whether it is misspelt or new to us: whoever adds it looks it up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Each:
    """A mapping with any keys, whose values all have one shape."""

    shape: Any


Shape = Any  # a type, a tuple of the values allowed, [shape of each], {field: shape}, or Each(shape)

_QUANTITIES = Each(str)
_RESOURCES = {"requests": _QUANTITIES, "limits": _QUANTITIES}
_ENV = {"name": str, "value": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str}}}
_PROBE = {"exec": {"command": [str]}, "periodSeconds": int, "timeoutSeconds": int}
_NO_RIGHTS = {"allowPrivilegeEscalation": bool, "capabilities": {"drop": [str]}}
_CONTAINER = {
    "name": str,
    "image": str,
    "command": [str],
    "args": [str],
    "env": [_ENV],
    "ports": [{"name": str, "containerPort": int}],
    "resources": _RESOURCES,
    "readinessProbe": _PROBE,
    "securityContext": _NO_RIGHTS,
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
_TOLERATION = {
    "key": str,
    "operator": ("Equal", "Exists"),
    "value": str,
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
}
_POD = {
    "metadata": {"labels": Each(str)},
    "spec": {
        "automountServiceAccountToken": bool,
        "serviceAccountName": str,
        "containers": [_CONTAINER],
        "securityContext": {
            "runAsNonRoot": bool,
            "runAsUser": int,
            "fsGroup": int,
            "seccompProfile": {"type": ("RuntimeDefault", "Localhost")},
        },
        "terminationGracePeriodSeconds": int,
        "tolerations": [_TOLERATION],
        "volumes": [{"name": str, "emptyDir": {"medium": ("Memory",), "sizeLimit": str}, "configMap": {"name": str}}],
    },
}
_RAY_CLUSTER = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "version": ("v1", "v2"),
        "env": [_ENV],
        "securityContext": _NO_RIGHTS,
        "idleTimeoutSeconds": int,
        "upscalingMode": ("Default", "Aggressive", "Conservative"),
        "resources": _RESOURCES,
    },
    "authOptions": {"mode": ("disabled", "token")},
    "headGroupSpec": {"rayStartParams": Each(str), "template": _POD},
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "rayStartParams": Each(str),
            "template": _POD,
        }
    ],
}
_SELECTOR = {"matchLabels": Each(str)}
_SPECS: Mapping[tuple[str, str], Shape] = {
    ("ray.io/v1", "RayCluster"): _RAY_CLUSTER,
    ("ray.io/v1", "RayJob"): {
        "entrypoint": str,
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": _RAY_CLUSTER,
    },
    ("v1", "Service"): {
        "selector": Each(str),
        "clusterIP": ("None",),
        "ports": [{"name": str, "port": int, "targetPort": str}],
    },
    ("apps/v1", "Deployment"): {"replicas": int, "selector": _SELECTOR, "template": _POD},
    ("apps/v1", "StatefulSet"): {
        "serviceName": str,
        "replicas": int,
        "selector": _SELECTOR,
        "template": _POD,
        "volumeClaimTemplates": [
            {
                "metadata": {"name": str},
                "spec": {"accessModes": [("ReadWriteOnce",)], "resources": {"requests": _QUANTITIES}},
            }
        ],
    },
    ("networking.k8s.io/v1", "NetworkPolicy"): {
        "podSelector": _SELECTOR,
        "policyTypes": [("Ingress", "Egress")],
        "ingress": [{"from": [{"podSelector": _SELECTOR}], "ports": [{"protocol": ("TCP", "UDP"), "port": int}]}],
    },
}


def faults(manifest: Mapping[str, Any]) -> list[str]:
    """What is wrong with a manifest, each fault with its place; none where its shape is one that is taken."""
    kind = (manifest.get("apiVersion", ""), manifest.get("kind", ""))
    frame = {"apiVersion": str, "kind": str, "metadata": {"name": str}}
    if kind == ("v1", "ConfigMap"):
        return list(_faults(manifest, {**frame, "data": Each(str)}, "ConfigMap"))
    if kind not in _SPECS:
        return [f"{kind} is not a kind that is known here"]
    return list(_faults(manifest, {**frame, "spec": _SPECS[kind]}, kind[1]))


def _faults(value: Any, shape: Shape, place: str) -> Iterator[str]:
    if isinstance(shape, Each | dict):
        if not isinstance(value, dict):
            yield f"{place} must be a mapping, but is {value!r}"
            return
        for name, inner in value.items():
            if isinstance(shape, dict) and name not in shape:
                yield f"{place} has no field {name}"
            else:
                yield from _faults(inner, shape[name] if isinstance(shape, dict) else shape.shape, f"{place}.{name}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{place} must be a list, but is {value!r}"
            return
        for number, inner in enumerate(value):
            yield from _faults(inner, shape[0], f"{place}[{number}]")
    elif isinstance(shape, tuple):
        if value not in shape:
            yield f"{place} must be one of {shape}, but is {value!r}"
    elif type(value) is not shape:
        yield f"{place} must be of type {shape.__name__}, but is {value!r}"
