"""The grammar of a job file as JSON Schema, each key with what stands below it in `job`.

Pure. pydantic could look for these docstrings itself (`use_attribute_docstrings`), but would do so at every import, and
that is a tenth of the time in which Airflow reads a hundred job files.
"""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import Any

from plantao import job


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file, for editors."""
    schema = job.Job.model_json_schema(by_alias=True)
    for name, texts in _docstrings(inspect.getsource(job)).items():
        properties = (schema if name == "Job" else schema["$defs"].get(name, {})).get("properties", {})
        for field, text in texts.items():
            key = getattr(job, name).model_fields[field].alias or field
            properties[key]["description"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _docstrings(source: str) -> dict[str, dict[str, str]]:
    """Return the text below each annotated name, by class."""
    return {
        part.name: {
            one.target.id: inspect.cleandoc(below.value.value)
            for one, below in pairwise(part.body)
            if isinstance(one, ast.AnnAssign)
            and isinstance(one.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        }
        for part in ast.parse(source).body
        if isinstance(part, ast.ClassDef)
    }
