"""The command `karat`: list, export, check, gate, evidence."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from karat.suites import Repository, Selection

SELECT_HELP = "suite[/case[/checkpoint]] with shell wildcards; default: everything"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="karat",
        description="Says whether a candidate computes what the frozen goldens hold, checkpoint by checkpoint.",
        epilog="exit codes: 0 all pass, 1 the candidate is wrong, 2 usage, 3 goldens missing, damaged or stale,"
        " 4 the candidate could not be run, 5 nothing was compared; the worst wins, in the order 3 2 4 1 5",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="say what there is to check and what a candidate must provide")
    listing.add_argument("select", nargs="*", metavar="SELECT", help=SELECT_HELP)
    listing.add_argument("--json", action="store_true", help="every checkpoint with its shape and contracts")

    export = commands.add_parser("export", help="write the inputs of cases, never the goldens")
    export.add_argument("select", nargs="+", metavar="SELECT", help=SELECT_HELP.partition(";")[0])
    export.add_argument("--to", required=True, type=Path, metavar="DIR", help="DIR/<suite>/<case>/ is written")
    export.add_argument("--format", default="safetensors", choices=("safetensors", "npy", "h5"), dest="file_format")
    export.add_argument("--contract", default="float32", metavar="NAME", help="its storage format (default: float32)")

    check = commands.add_parser("check", help="check a candidate")
    check.add_argument("candidate", metavar="CANDIDATE", help="py:TARGET, dir:PATH, cmd:COMMAND or null:KIND")
    check.add_argument("select", nargs="*", metavar="SELECT", help=SELECT_HELP)
    check.add_argument(
        "--contract",
        action="append",
        default=[],
        metavar="NAME",
        help="what the candidate promises; repeatable (default: float32, for dir: the storage format of the dump)",
    )
    check.add_argument("--require", action="append", default=[], metavar="SELECT", help="may not be unsupported")
    check.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="for one case (default: 300)")
    check.add_argument(
        "--properties", action="store_true", help="try what must hold of its own outputs too, by running it again"
    )
    check.add_argument("--json", metavar="FILE", help="write the report as JSON; - for standard output")
    check.add_argument("--junit", metavar="FILE", help="write the report as JUnit XML; - for standard output")

    gate = commands.add_parser("gate", help="say whether the goldens are complete, intact and fresh")
    gate.add_argument("--json", metavar="FILE", help="write the findings as JSON; - for standard output")

    evidence = commands.add_parser(
        "evidence", help="show what correct formulations and planted faults did: rejected, missed, misnamed, invisible"
    )
    evidence.add_argument("select", nargs="*", metavar="SELECT", help="suites, with shell wildcards; default: all")
    evidence.add_argument("--json", metavar="FILE", help="write it as JSON; - for standard output")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parser().parse_args(arguments)
    from karat.errors import KaratError
    from karat.suites import find_repository

    run = {"list": _list, "export": _export, "check": _check, "gate": _gate, "evidence": _evidence}[options.command]
    try:
        code = run(find_repository(), options)
        sys.stdout.flush()  # here, where it is known what to do when nobody reads
    except KaratError as error:
        print(f"karat: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("karat: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `karat list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python flushes when it ends
        return 0
    return code


def _selected(repository: Repository, options: argparse.Namespace) -> Selection:
    from karat.suites import Selection

    selection = Selection.parse(options.select)
    selection.require_matches(repository.suites)
    return selection


def _list(repository: Repository, options: argparse.Namespace) -> int:
    from karat.suites import Selection

    selection = _selected(repository, options)
    if options.json:
        import json

        rows = [
            {
                "suite": s.name,
                "case": c.name,
                "checkpoint": p.name,
                "shape": list(p.shape),
                "contracts": list(s.contracts_of(c)),
            }
            for s, c, p in selection.walk(repository.suites.values())
        ]
        print(json.dumps(rows, indent=1))
        return 0
    from karat import listing
    from karat.tolerances import read_tolerances

    if not options.select:
        print("\n".join(listing.line(suite) for suite in repository.suites.values()))
        print("\nkarat list SUITE says what a candidate gets and must produce, karat list SUITE/CASE every shape.")
        return 0
    whole = Selection.parse(text for text in options.select if "/" not in text).patterns
    texts = []
    for suite in repository.suites.values():
        if whole and Selection(whole).has(suite.name):
            tolerances = read_tolerances(repository.root / "tolerances.toml")
            texts.append(listing.overview(repository, suite, tolerances))
        else:
            cases = [case for case in suite.cases if selection.has(suite.name, case.name)]
            texts += [listing.details(suite, case, selection) for case in cases]
    print("\n\n".join(texts))
    return 0


def _export(repository: Repository, options: argparse.Namespace) -> int:
    from karat import exchange, gate
    from karat.errors import GoldenError, UsageError
    from karat.goldens import GoldenSet
    from karat.tolerances import read_tolerances

    selection = _selected(repository, options)
    contract = read_tolerances(repository.root / "tolerances.toml").contract(options.contract)
    for suite in repository.suites.values():
        if not selection.has(suite.name):
            continue
        findings = gate.inspect(repository, [suite])
        if findings:
            raise GoldenError("stale", f"the goldens of {suite.name} are not usable:\n{findings[0]}")
        goldens = GoldenSet.open(repository, suite.name)
        for case in suite.cases:
            if selection.has(suite.name, case.name):
                if contract.name in suite.contracts and contract.name not in suite.contracts_of(case):
                    print(f"{suite.name}/{case.name}: not written: it is not checked under {contract.name}")
                    continue
                folder = options.to / suite.name / case.name
                arrays = goldens.draw_inputs(case)
                try:
                    exchange.write_case(folder, suite, case, contract, arrays, file_format=options.file_format)
                except OSError as error:
                    raise UsageError(f"cannot write {folder}: {error.strerror}") from None
                print(f"{folder}: {len(case.checkpoints)} checkpoints wanted, {contract.storage}")
    print(
        f"put each case's outputs beside its inputs, as outputs.safetensors, and run:"
        f" karat check dir:{options.to} --contract {contract.name}"
    )
    return 0


def _check(repository: Repository, options: argparse.Namespace) -> int:
    from karat import properties, report_files
    from karat import report as reports
    from karat.candidates import open_candidate
    from karat.errors import UsageError
    from karat.session import check
    from karat.suites import Selection

    if options.json == options.junit == "-":
        raise UsageError("--json - and --junit - would be mixed on standard output; give one of them a file")
    selection = Selection.parse(options.select)
    required = Selection.parse(options.require) if options.require else None
    if required is not None:
        required.require_matches(repository.suites)
    candidate = open_candidate(options.candidate, timeout=options.timeout)
    try:
        report = check(repository, candidate, selection, contracts=options.contract, required=required)
        usable = options.properties and not report.findings
        tried = properties.check_properties(repository, candidate, selection, options.contract) if usable else []
    finally:
        candidate.close()
    written = "-" in (options.json, options.junit)
    print(reports.text(report, repository, tried), file=sys.stderr if written else sys.stdout, flush=True)
    if options.json:
        _write(options.json, report_files.as_json(report, tried) + "\n")
    if options.junit:
        _write(options.junit, report_files.as_junit(report, repository))
    return reports.exit_code(report, tried)


def _gate(repository: Repository, options: argparse.Namespace) -> int:
    import json

    from karat import gate, report_files
    from karat import report as reports

    findings = gate.inspect(repository)
    content = {"schema": 1, "ok": not findings, "findings": report_files.findings_json(findings)}
    if options.json:
        _write(options.json, json.dumps(content, indent=1) + "\n")
    print(reports.findings_text(findings), file=sys.stderr if options.json == "-" else sys.stdout)
    return 3 if findings else 0


def _evidence(repository: Repository, options: argparse.Namespace) -> int:
    import json

    from karat import evidence
    from karat.errors import GoldenError, UsageError
    from karat.suites import Selection

    selection = Selection.parse(options.select)
    selection.require_matches(repository.suites)
    suites = [suite for suite in repository.suites.values() if selection.has(suite.name)]
    suites = [suite for suite in suites if evidence.required(repository, suite)]
    if not suites:
        raise UsageError("no selected suite has formulations and frozen goldens, of which there could be evidence")
    contents, failures = [], []
    for suite in suites:
        try:
            contents.append(evidence.read_evidence(repository, suite.name))
        except GoldenError as error:
            failures.append(f"{error.kind}: {error}")
    if options.json:
        _write(options.json, json.dumps(evidence.as_json(contents), indent=1) + "\n")
    lines = "\n".join([evidence.text(contents) if contents else "", *failures])
    print(lines, file=sys.stderr if options.json == "-" else sys.stdout)
    return 3 if failures or any(evidence.shortcomings(content) for content in contents) else 0


def _write(file: str, content: str) -> None:
    from karat.errors import UsageError

    if file == "-":
        print(content, end="")
        return
    try:
        Path(file).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from None


if __name__ == "__main__":
    raise SystemExit(main())
