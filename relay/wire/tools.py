"""Tools that a client offers: checked when they are offered, and as a language model is given them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import UNSET

from relay.errors import BadEvent
from relay.events import Tool, ToolOffer
from relay.wire.types import FunctionTool, McpTool, ToolChoice
from relay.wire.types import Tool as WireTool

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Names that language model servers take for a function."""


def check_tools(tools: Sequence[WireTool], param: str) -> None:
    """Raises BadEvent unless every tool is a function of its own name whose parameters are a JSON schema's object.

    Args:
        tools: The client's.
        param: Path of the list in its event.
    """
    names: set[str] = set()
    for at, tool in enumerate(tools):
        if isinstance(tool, McpTool):
            raise BadEvent(
                "This server connects to no tool servers: offer functions, and call the tool server from the client",
                code="unsupported_value",
                param=f"{param}[{at}].type",
            )
        if NAME.fullmatch(tool.name) is None:
            raise BadEvent(
                "A function's name has 1 to 64 letters, digits, underscores and dashes", param=f"{param}[{at}].name"
            )
        if tool.name in names:
            raise BadEvent(f"Two functions have the name '{tool.name}'", param=f"{param}[{at}].name")
        names.add(tool.name)
        if tool.parameters not in (UNSET, None) and not isinstance(tool.parameters, dict):
            raise BadEvent("A function's parameters are a JSON schema, an object", param=f"{param}[{at}].parameters")


def check_choice(choice: str | ToolChoice, tools: Sequence[WireTool], param: str) -> None:
    """Raises BadEvent if a choice asks for a tool that is not offered."""
    if not isinstance(choice, ToolChoice):
        return
    if choice.type == "mcp":
        raise BadEvent(
            "This server connects to no tool servers: choose a function",
            code="unsupported_value",
            param=f"{param}.type",
        )
    if not isinstance(choice.name, str):
        raise BadEvent(
            f"Missing required parameter: '{param}.name'", code="missing_required_parameter", param=f"{param}.name"
        )
    if choice.name not in {tool.name for tool in tools if isinstance(tool, FunctionTool)}:
        raise BadEvent(f"There is no function '{choice.name}' among the tools", param=f"{param}.name")


def offer(tools: Sequence[WireTool], choice: str | ToolChoice, parallel: bool | None) -> ToolOffer | None:
    """The tools of a response as a language model is given them; None for none.

    A choice of a function that is not (any more) among the tools leaves it to the model.
    """
    functions = tuple(
        Tool(tool.name, tool.description or None, tool.parameters or None)
        for tool in tools
        if isinstance(tool, FunctionTool)
    )
    if not functions:
        return None
    if isinstance(choice, ToolChoice):
        only = choice.name if choice.name in {tool.name for tool in functions} else None
        return ToolOffer(functions, only=only or None, parallel=parallel)
    return ToolOffer(functions, choice, parallel=parallel)  # type: ignore[arg-type]  # one of the literals of the wire
