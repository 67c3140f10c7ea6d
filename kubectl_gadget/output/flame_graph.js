// Draws the graph of the JSON in #data into #graph: click zooms, the field searches, Escape takes both back. What is
// shown stands in the address behind #, so it can be kept as a bookmark. The trap: titles come from containers, so they
// only ever become text nodes.
"use strict";
(function () {
	const NS = "http://www.w3.org/2000/svg", XHTML = "http://www.w3.org/1999/xhtml";
	const ROW = 18, TOP = 68, FOOT = 24, CHARACTER = 7.25, LEAST = 0.4;
	const graph = document.getElementById("graph");
	const data = JSON.parse(document.getElementById("data").textContent);
	const HUES = { user: [10, 45], kernel: [195, 225], unknown: [0, 0], place: [90, 140] };

	// Where each node begins and how deep it lies; from the root on, without recursion.
	const nodes = [];
	let depth = 0;
	function place(list, start, level, parent) {
		const node = {
			title: list[0], kind: list[1], weight: list[2], file: list[4], difference: list[5], start, level, parent, children: [],
		};
		nodes.push(node);
		depth = Math.max(depth, level);
		return node;
	}
	const root = place(data.root, 0, 0, null);
	const waiting = [[data.root, root]];
	while (waiting.length) {
		const [list, node] = waiting.pop();
		let start = node.start;
		for (const child of list[3]) {
			const made = place(child, start, node.level + 1, node);
			node.children.push(made);
			start += child[2];
			waiting.push([child, made]);
		}
	}

	let zoomed = root, wanted = "";

	function amount(weight) {
		if (data.unit === "nanoseconds") {
			for (const [size, name] of [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]])
				if (weight >= size) return (weight / size).toPrecision(3) + " " + name;
			return weight + " ns";
		}
		if (data.unit === "bytes") {
			for (const [size, name] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]])
				if (weight >= size) return (weight / size).toPrecision(3) + " " + name;
			return weight + " B";
		}
		return String(weight);
	}

	function share(weight) {
		return root.weight ? (100 * weight / root.weight).toFixed(1) + " %" : "0 %";
	}

	function change(node) {
		return (node.difference > 0 ? "+" : "−") + amount(Math.abs(node.difference));
	}

	function describe(node) {
		const more = node.difference === undefined ? "" : ", " + change(node);
		return node.title + (node.file ? " (" + node.file + ")" : "") + ": " + amount(node.weight) + ", " + share(node.weight) + more;
	}

	// The same function has the same colour everywhere, and in each graph.
	function colour(node) {
		if (node.difference !== undefined) {
			const strength = Math.min(1, Math.abs(node.difference) / (node.weight || 1));
			return "hsl(" + (node.difference > 0 ? 0 : 220) + ",80%," + (92 - 32 * strength) + "%)";
		}
		let hash = 0;
		for (const character of node.title) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
		const [from, to] = HUES[node.kind] || HUES.unknown;
		const hue = from + hash % 1000 / 1000 * (to - from);
		return "hsl(" + hue + "," + (node.kind === "unknown" ? 0 : 75) + "%," + (62 + hash % 13) + "%)";
	}

	function make(name, attributes, text) {
		const element = document.createElementNS(NS, name);
		for (const key in attributes) element.setAttribute(key, attributes[key]);
		if (text !== undefined) element.appendChild(document.createTextNode(text));
		return element;
	}

	function matches(node) {
		return wanted !== "" && node.title.toLowerCase().includes(wanted.toLowerCase());
	}

	// What is found inside of what is found counts once.
	function found() {
		let sum = 0;
		const stack = [root];
		while (stack.length) {
			const node = stack.pop();
			if (matches(node)) sum += node.weight;
			else stack.push(...node.children);
		}
		return sum;
	}

	const controls = make("foreignObject", { x: 10, y: 42, width: 640, height: 26 });
	const box = document.createElementNS(XHTML, "div");
	const search = document.createElementNS(XHTML, "input");
	search.setAttribute("id", "search");
	search.setAttribute("type", "search");
	search.setAttribute("placeholder", "search");
	search.setAttribute("aria-label", "search functions");
	const reset = document.createElementNS(XHTML, "button");
	reset.setAttribute("id", "reset");
	reset.textContent = "reset zoom";
	const theme = document.createElementNS(XHTML, "button");
	theme.setAttribute("id", "theme");
	box.append(search, " ", reset, " ", theme);
	controls.appendChild(box);
	graph.appendChild(controls);
	const status = make("text", { id: "status", y: 59, x: 410 }, "");
	graph.appendChild(status);
	const frames = document.getElementById("frames");
	const detail = make("text", { id: "detail", x: 10 }, "");
	graph.appendChild(detail);

	// As the system has it, until the button is pressed.
	const system = window.matchMedia("(prefers-color-scheme: dark)");
	let chosen = "";
	function paint() {
		const dark = chosen ? chosen === "dark" : system.matches;
		if (chosen) graph.setAttribute("data-theme", chosen);
		theme.textContent = dark ? "light" : "dark";
		theme.setAttribute("aria-label", dark ? "use light colors" : "use dark colors");
	}

	function draw() {
		graph.setAttribute("width", "100%");
		const width = Math.max(graph.getBoundingClientRect().width || 1200, 300) - 20;
		const height = TOP + (depth + 1) * ROW + FOOT;
		graph.setAttribute("height", height);
		detail.setAttribute("y", height - 8);
		frames.replaceChildren();
		const scale = zoomed.weight ? width / zoomed.weight : 0;
		const above = new Set();
		for (let node = zoomed.parent; node; node = node.parent) above.add(node);
		for (const node of nodes) {
			const over = above.has(node);
			const from = over ? 0 : (node.start - zoomed.start) * scale;
			const wide = over ? width : node.weight * scale;
			if (wide < LEAST || from < -0.01 || from + wide > width + 0.01) continue;
			const y = TOP + node.level * ROW;
			const group = make("g", {
				class: "call" + (over ? " above" : "") + (matches(node) ? " found" : ""), "data-kind": node.kind, tabindex: 0,
			});
			group.appendChild(make("title", {}, describe(node)));
			group.appendChild(make("rect", { x: 10 + from, y, width: wide, height: ROW - 1, rx: 1, fill: colour(node) }));
			const room = Math.floor((wide - 6) / CHARACTER);
			if (room > 1) {
				const text = node.title.length > room ? node.title.slice(0, room - 1) + "…" : node.title;
				group.appendChild(make("text", { x: 13 + from, y: y + ROW - 5 }, text));
			}
			group.addEventListener("click", () => zoom(node));
			group.addEventListener("keydown", (event) => { if (event.key === "Enter") zoom(node); });
			group.addEventListener("mouseenter", () => { detail.textContent = describe(node); });
			group.addEventListener("focus", () => { detail.textContent = describe(node); });
			frames.appendChild(group);
		}
		status.textContent = wanted ? share(found()) + " found" : "";
	}

	function remember() {
		const path = [];
		for (let node = zoomed; node.parent; node = node.parent) path.unshift(node.parent.children.indexOf(node));
		const parts = [];
		if (path.length) parts.push("zoom=" + path.join("."));
		if (wanted) parts.push("search=" + encodeURIComponent(wanted));
		if (chosen) parts.push("theme=" + chosen);
		try {
			history.replaceState(null, "", "#" + parts.join("&"));
		} catch (error) {
			// Some browsers keep the address of a local file as it is.
		}
	}

	function recall() {
		const given = new URLSearchParams(location.hash.slice(1));
		wanted = given.get("search") || "";
		search.value = wanted;
		chosen = ["dark", "light"].includes(given.get("theme")) ? given.get("theme") : "";
		paint();
		zoomed = root;
		for (const index of (given.get("zoom") || "").split(".").filter((part) => part !== ""))
			zoomed = zoomed.children[Number(index)] || zoomed;
		draw();
	}

	function zoom(node) {
		zoomed = node;
		remember();
		draw();
	}

	search.addEventListener("input", () => {
		wanted = search.value;
		remember();
		draw();
	});
	theme.addEventListener("click", () => {
		chosen = theme.textContent;
		remember();
		paint();
	});
	system.addEventListener("change", paint);
	reset.addEventListener("click", () => zoom(root));
	window.addEventListener("keydown", (event) => {
		if (event.key !== "Escape") return;
		search.value = wanted = "";
		zoom(root);
	});
	window.addEventListener("resize", draw);
	window.addEventListener("hashchange", recall);
	recall();
})();
