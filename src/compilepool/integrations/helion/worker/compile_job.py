"""The job: compile the Triton kernel that Helion has generated for one configuration."""

from __future__ import annotations

from compilepool.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from helion.autotuner.precompile_future import SerializedCompiledFunction

CLASSIFICATION = "helion_classification"
"""The attribute of an exception that says what Helion is to make of it."""


class Recipe(NamedTuple):
    """What `triton.compile` is told: its `ASTSource`, but for the kernel, and its arguments."""

    signature: dict[str, Any]
    constants: dict[Any, Any]
    attributes: dict[Any, Any]
    target: Any
    options: dict[str, Any]


def precompile(
    function: SerializedCompiledFunction, kernel: str, recipe: Recipe, expected: str
) -> None:
    """Compile a kernel into Triton's cache.

    Args:
        function: the generated function, with its module's source.
        kernel: the name of the kernel in that module.
        recipe: what to compile it for.
        expected: the hash of the `ASTSource` in the program.

    Raises:
        RuntimeError: the program would not find the result in Triton's cache.
        Exception: Triton raises it. It has Helion's classification as an attribute.
    """
    from helion.autotuner.logger import classify_triton_exception
    from helion.autotuner.precompile_future import _load_compiled_fn, _unload_compiled_fn
    from triton.compiler import ASTSource, compile

    host = _load_compiled_fn(function)
    try:
        jitted = host.__globals__[kernel]
        source = ASTSource(jitted, recipe.signature, recipe.constants, recipe.attributes)
        if source.hash() != expected:
            raise RuntimeError(
                f"the program would not find {kernel} in Triton's cache, because it has other"
                " source there; switch compilepool.integrations.helion off for this kernel"
            )
        compile(source, target=recipe.target, options=recipe.options)
    except Exception as error:
        setattr(error, CLASSIFICATION, classify_triton_exception(error))
        raise
    finally:
        _unload_compiled_fn(host)
