"""The example holds every key and nothing else, and the schema describes each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from backupd import config
from backupd.config.model import Config
from backupd.config.secrets import Reference, Secret
from backupd.config.yaml_lines import parse
from tests.support.config import write

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "config.example.yaml").read_text()


def everything() -> str:
    """The example with all that is commented out taken in, but for what excludes something else."""
    text = re.sub(r"(?m)^( *)# (?=( *)(?:- \{?)?[a-z_0-9]+: *(?:[^ ].*)?$)", r"\1", EXAMPLE)
    text = text.replace("\n  key_file:", "\n  # key_file:").replace('"5F:8A:..."', '"' + "ab" * 32 + '"')
    lines = [line for line in text.splitlines() if not re.match(r" +(?:none|implicit|auto): |[A-Z]", line)]
    return "\n".join(lines) + "\n"


def keys_of(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields).union(
        *(keys_of(inner) for field in model.model_fields.values() for inner in models_in(field.annotation))
    )


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, Secret):
        return [Reference]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in getattr(annotation, "__args__", ()) for model in models_in(each)]


def in_schema(value: object, part: dict[str, Any], schema: dict[str, Any], place: str = "") -> list[str]:
    """Keys of the value that its part of the schema does not know."""
    if "$ref" in part:
        return in_schema(value, schema["$defs"][part["$ref"].removeprefix("#/$defs/")], schema, place)
    if choices := part.get("anyOf", part.get("oneOf")):
        return min((in_schema(value, each, schema, place) for each in choices), key=len)
    if isinstance(value, dict):
        unknown: list[str] = []
        patterns = part.get("patternProperties", {})
        for key, inner in value.items():
            matching = [each for pattern, each in patterns.items() if re.search(pattern, key)]
            known = [part["properties"][key]] if key in part.get("properties", {}) else matching
            unknown += in_schema(inner, known[0], schema, f"{place}.{key}") if known else [f"{place}.{key}"]
        return unknown
    if isinstance(value, list):
        return [key for each in value for key in in_schema(each, part["items"], schema, place)]
    return []


def test_it_is_valid() -> None:
    assert list(config.load(ROOT / "config.example.yaml").accounts) == ["alice"]


def test_every_key_is_in_it() -> None:
    written = set(re.findall(r"(?m)(?:^[ #]*|[{,] *|- )([a-z_0-9]+):", EXAMPLE))
    assert keys_of(Config) - written == set()


def test_it_is_valid_with_everything_that_is_commented_out(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, everything()))
    assert set(loaded.accounts) == {"alice", "bob", "carol", "dave", "erin", "frank"}
    assert loaded.retention.keep_daily == 30


def test_each_of_its_keys_is_in_the_schema() -> None:
    schema = config.schema()
    assert in_schema(parse(everything(), Path("config.example.yaml")).data, schema, schema) == []
    assert in_schema({"accounts": {"a": {"imap": {"hst": 1}}, "b c": {}}}, schema, schema) == [
        ".accounts.a.imap.hst",
        ".accounts.b c",
    ]


def test_the_schema_describes_every_key() -> None:
    schema = config.schema()
    undescribed = [
        name
        for section in [schema, *schema["$defs"].values()]
        for name, each in section["properties"].items()
        if not {"description", "$ref"} & set(each)
    ]
    assert undescribed == []
    assert [name for name, section in schema["$defs"].items() if not section.get("description")] == []
    assert {"repository", "accounts", "state_dir"} <= set(schema["properties"])
