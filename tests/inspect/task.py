"""An evaluation with a model that is made up: it uses inspect-ai's bash tool in the sandbox, twice."""

from __future__ import annotations

import os

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, Target, accuracy, scorer
from inspect_ai.solver import TaskState, generate, use_tools
from inspect_ai.tool import bash
from inspect_ai.util import sandbox

CALLS = ("cat given.txt > answer.txt; pwd", "sha256sum answer.txt; " + os.environ.get("EVAL_LAST", "id -un"))


@scorer(metrics=[accuracy()])
def kept():  # type: ignore[no-untyped-def]  # inspect-ai's own types are not installed for development
    """What the first call has written is there."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=1 if await sandbox().read_file("answer.txt") == target.text else 0)

    return score


@task
def copying() -> Task:
    outputs = [ModelOutput.for_tool_call("mockllm/model", "bash", {"command": call}) for call in CALLS]
    outputs.append(ModelOutput.from_content("mockllm/model", "done"))
    for output in outputs:
        output.usage = ModelUsage()  # else the model counts tokens, with a table that it downloads
    return Task(
        dataset=[Sample(input="copy it", target="some text", files={"given.txt": "some text"})],
        solver=[use_tools(bash(timeout=300)), generate()],
        scorer=kept(),
        model=get_model("mockllm/model", custom_outputs=outputs),
        sandbox="cloister",
    )
