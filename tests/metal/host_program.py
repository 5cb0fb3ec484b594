# A Metal kernel's text as C++ for the host.
#
# With emulator/msl/metal_stdlib.h the text is C++ nearly as it stands: the keywords of
# address spaces are empty macros, attributes are ignored. Only threadgroup variables,
# which all threads share, have to be rewritten, and a plain function added through
# which the emulator calls the kernel.

import re

from metal_text import MetalText, Parameter, without_comments

INSTANTIATION = re.compile(r"^template \[\[host_name.*$", re.MULTILINE)
TYPE = r"[\w:]+(?:<[^<>;]*>)?"
THREADGROUP_VARIABLE = re.compile(
    rf"\bthreadgroup\s+(?P<type>{TYPE})\s+(?P<name>\w+)\s*"
    r"(?P<extents>(?:\[[^\]]*\]\s*)*);"
)
OTHER_THREADGROUP_VARIABLE = re.compile(rf"\bthreadgroup\s+{TYPE}\s+\w+\s*[\[=,;{{].*")


def as_host_program(metal: MetalText) -> str:
    """The kernel as C++, every line where it was, and a way to call it."""
    text = INSTANTIATION.sub("", without_comments(metal.text))
    text = THREADGROUP_VARIABLE.sub(
        r"auto& \g<name> = emulator::threadgroup_array<\g<type>\g<extents>>"
        r'("\g<name>");',
        text,
    )
    if match := OTHER_THREADGROUP_VARIABLE.search(text):
        raise ValueError(
            "Expected a threadgroup variable to have a statement of its own and no "
            f"initialiser, but got: {match[0]}"
        )
    function = metal.function
    if metal.template_arguments:
        function += f"<{', '.join(metal.template_arguments)}>"
    return "\n".join(
        [
            "#include <metal_stdlib.h>",
            '#line 1 "kernel.metal"',
            text,
            'extern "C" __attribute__((no_sanitize("thread"))) void emulated_kernel(',
            "    void* const* buffers, const emulator::ThreadAttributes& self) {",
            f"  {function}({', '.join(map(argument, metal.parameters))});",
            "}",
        ]
    )


def argument(parameter: Parameter) -> str:
    index = parameter.buffer_index
    if index is None:
        return f"emulator::attribute(self.{parameter.attribute})"
    pointer = f"static_cast<{parameter.type.rstrip('&*')}*>(buffers[{index}])"
    return f"*{pointer}" if parameter.type.endswith("&") else pointer
