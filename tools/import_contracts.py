"""A contract for import-linter: what the modules of a folder may import, and nothing else."""

from __future__ import annotations

import sys

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class AllowList(Contract):
    """The modules of `folder` import each other, the standard library, and what `may_import` names.

    Options:
        folder: the package or module.
        may_import: modules and packages, with all that is below them; of this project or not.
    """

    type_name = "allow_list"

    folder = fields.StringField()
    may_import = fields.ListField(subfield=fields.StringField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Find the imports that are not allowed, and the permissions that nobody needs."""
        allowed = set(self.may_import or ())
        used: set[str] = set()
        refused: list[tuple[str, str]] = []
        for importer in sorted({self.folder, *graph.find_descendants(self.folder)}):
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                if self._is_free(imported):
                    continue
                permission = _permission(imported, allowed)
                if permission is None:
                    refused.append((importer, imported))
                else:
                    used.add(permission)
        unused = sorted(allowed - used)
        metadata = {"refused": refused, "unused": unused}
        return ContractCheck(kept=not refused and not unused, metadata=metadata)

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print what `check` has found."""
        for importer, imported in check.metadata["refused"]:
            output.print_error(f"{importer} must not import {imported}", bold=False)
        for permission in check.metadata["unused"]:
            output.print_error(f"{self.folder} does not import {permission}", bold=False)

    def _is_free(self, imported: str) -> bool:
        top = imported.partition(".")[0]
        return top in sys.stdlib_module_names or f"{imported}.".startswith(f"{self.folder}.")


def _permission(imported: str, allowed: set[str]) -> str | None:
    """The entry of the list that allows an import; None if there is none."""
    parents = imported.split(".")
    names = [".".join(parents[:count]) for count in range(len(parents), 0, -1)]
    return next((name for name in names if name in allowed), None)
