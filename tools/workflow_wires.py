"""Wires that pass no node: what goes further than to the next column runs in a lane above all of them, what goes back
in one above the row that it goes to."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

#: px: of a lane above another, of a wire beside another between two columns, of either from the nodes.
LANE, BESIDE, ROOM = 16, 10, 18
TITLE, SLOT = 30, 20
#: px from a node up to between its group and the one above.
ABOVE = 89


def route(workflow: dict[str, Any], columns: list[list[int]]) -> None:
    """Give a workflow's links the points that they run through. columns: ids of the nodes, from left to right."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    column = {number: n for n, numbers in enumerate(columns) for number in numbers}
    right = [max(nodes[n]["pos"][0] + nodes[n]["size"][0] for n in numbers) for numbers in columns]
    left = [min(nodes[n]["pos"][0] for n in numbers) for numbers in columns]
    lane = min([group["bounding"][1] for group in workflow["groups"]]
               + [node["pos"][1] - TITLE for node in nodes.values()]) - ROOM  # fmt: skip
    far: dict[tuple[int, int], list[list[Any]]] = defaultdict(list)
    for link in workflow["links"]:
        if column[link[3]] - column[link[1]] > 1:
            far[link[1], link[2]].append(link)
    used_right: dict[int, int] = defaultdict(int)
    used_left: dict[int, int] = defaultdict(int)
    points: list[dict[str, Any]] = []
    parents: dict[int, int] = {}

    def point(x: float, y: float, parent: int | None, links: list[int]) -> int:
        made = {"id": len(points) + 1, "pos": [round(x), round(y)], "linkIds": links}
        points.append(made | ({"parentId": parent} if parent else {}))
        return len(points)

    for (origin, slot), links in sorted(far.items(), key=lambda entry: (column[entry[0][0]], entry[0])):
        start = column[origin]
        x = right[start] + ROOM + BESIDE * used_right[start]
        used_right[start] += 1
        every = [link[0] for link in links]
        last = point(x, nodes[origin]["pos"][1] + SLOT * slot + 14, None, every)
        last = point(x, lane, last, every)
        goals = sorted({column[link[3]] for link in links})
        for goal in goals:
            here = sorted((link for link in links if column[link[3]] == goal), key=lambda link: _place(nodes, link))
            onward = [link[0] for link in links if column[link[3]] >= goal]
            x = left[goal] - ROOM - BESIDE * used_left[goal]
            used_left[goal] += 1
            last = point(x, lane, last, onward)
            down = last
            for n, link in enumerate(here):
                down = point(x, _place(nodes, link), down, [other[0] for other in here[n:]])
                parents[link[0]] = down
        lane -= LANE
    for number, origin, slot, target, place, _ in workflow["links"]:
        start, goal = column[origin], column[target]
        if start <= goal:
            continue
        x, y = right[start] + ROOM + BESIDE * used_right[start], nodes[target]["pos"][1] - ABOVE
        used_right[start] += 1
        last = point(x, nodes[origin]["pos"][1] + SLOT * slot + 14, None, [number])
        last = point(x, y, last, [number])
        x = left[goal] - ROOM - BESIDE * used_left[goal]
        used_left[goal] += 1
        last = point(x, y, last, [number])
        parents[number] = point(x, nodes[target]["pos"][1] + SLOT * place + 14, last, [number])
    workflow["extra"]["reroutes"] = points
    workflow["extra"]["linkExtensions"] = [{"id": link, "parentId": parent} for link, parent in parents.items()]


def _place(nodes: dict[int, Any], link: list[Any]) -> float:
    """How far down a link arrives."""
    target = nodes[link[3]]
    return float(target["pos"][1] + SLOT * link[4] + 14)
