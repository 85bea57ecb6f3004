"""Documents about an image in the shapes that ``docker image inspect`` and ``docker image history`` made common.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podrt.image.layers import LayerInfo
from podrt.image.reference import parse
from podrt.image.types import Image


def inspect(image: Image, config: dict[str, Any], infos: Sequence[LayerInfo | None]) -> dict[str, Any]:
    """``config`` is the image configuration, ``infos`` the layers, bottom first."""
    return {
        "Id": image.id,
        "Digest": image.manifest_digest,
        "RepoTags": [parse(name).familiar() for name in image.names],
        "RepoDigests": [parse(digest).familiar() for digest in image.digests],
        "Created": config.get("created", ""),
        "Author": image.author,
        "Comment": _last_comment(config),
        "Architecture": image.architecture,
        "Variant": image.variant,
        "Os": image.os,
        "Size": image.size,
        "Config": config.get("config") or {},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Layers": [
            {
                "DiffID": diff_id,
                "ChainID": chain_id,
                "Size": info.size if info else 0,
                "Entries": info.entries if info else 0,
            }
            for diff_id, chain_id, info in zip(image.diff_ids, image.chain_ids, infos, strict=True)
        ],
    }


def history(image: Image, config: dict[str, Any], infos: Sequence[LayerInfo | None]) -> list[dict[str, Any]]:
    """Newest first. A configuration without (or with an inconsistent) history gives one step for each layer."""
    steps = [step for step in config.get("history") or [] if isinstance(step, dict)]
    if sum(not step.get("empty_layer") for step in steps) != len(image.diff_ids):
        steps = [{"created": config.get("created", "")} for _ in image.diff_ids]
    result = []
    remaining = iter(infos)
    for step in steps:
        empty = bool(step.get("empty_layer"))
        info = None if empty else next(remaining)
        result.append(
            {
                "Id": "<missing>",
                "Created": step.get("created", ""),
                "CreatedBy": step.get("created_by", ""),
                "Comment": step.get("comment", ""),
                "Size": info.size if info else 0,
                "EmptyLayer": empty,
                "Tags": [],
            }
        )
    result.reverse()
    if result:
        result[0]["Id"] = image.id
        result[0]["Tags"] = [parse(name).familiar() for name in image.names]
    return result


def _last_comment(config: dict[str, Any]) -> str:
    steps = [step for step in config.get("history") or [] if isinstance(step, dict)]
    return str(steps[-1].get("comment", "")) if steps else ""
