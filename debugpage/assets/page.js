"use strict";
// The page is whole without this. It makes ages grow, redraws what has changed,
// and gives the page its keys.
(() => {
	const live = document.getElementById("live");
	const state = document.getElementById("state");
	const hold = document.getElementById("hold");
	const help = document.getElementById("help");
	let held = false, pressing = false;
	let late = null; // what has come while the page was held, or a button pressed

	// As rounded does in Go.
	const rounded = (ms) => {
		if (ms < 1) return "<1 ms";
		if (ms < 1000) return Math.floor(ms) + " ms";
		if (ms < 60000) return (ms / 1000).toFixed(1) + " s";
		const s = Math.floor(ms / 1000), m = Math.floor(s / 60);
		return m < 60 ? m + " min " + (s % 60) + " s" : Math.floor(m / 60) + " h " + (m % 60) + " min";
	};
	const say = (what, text) => { state.dataset.state = what; state.textContent = text; };

	// swap puts new content in place and keeps what the reader has done to the old:
	// what is open, what has the focus, where the picture is scrolled to.
	const swap = (html) => {
		const open = [...live.querySelectorAll("details[open]")].map((d) => d.id);
		const focus = live.contains(document.activeElement) ? document.activeElement : null;
		const where = focus && (focus.id ? "#" + CSS.escape(focus.id) : focus.dataset.box ? `[data-box="${focus.dataset.box}"]`
			: focus.getAttribute("href") ? `a[href="${CSS.escape(focus.getAttribute("href"))}"]` : null);
		const here = live.querySelector(".here")?.id;
		const left = live.querySelector(".picture")?.scrollLeft || 0;
		live.innerHTML = html;
		for (const id of open) document.getElementById(id)?.setAttribute("open", "");
		if (here) document.getElementById(here)?.classList.add("here");
		const picture = live.querySelector(".picture");
		if (picture) picture.scrollLeft = left;
		if (where) live.querySelector(where)?.focus({preventScroll: true});
	};
	const grow = (ms) => {
		for (const e of live.querySelectorAll(".age")) e.textContent = rounded(e.dataset.ns / 1e6 + ms);
	};
	const clock = () => new Date().toTimeString().slice(0, 8);

	const source = new EventSource("events" + location.search);
	source.addEventListener("page", (e) => {
		if (held || pressing) { late = e.data; return; }
		late = null;
		swap(JSON.parse(e.data));
		say("live", "live, " + clock());
	});
	source.addEventListener("tick", (e) => {
		if (held || late) return;
		grow(JSON.parse(e.data));
		say("live", "live, " + clock());
	});
	source.addEventListener("error", () => { if (!held) say("lost", "not live; it tries again"); });

	const toggle = () => {
		held = !held;
		hold.setAttribute("aria-pressed", held);
		if (held) { say("still", "held, " + clock()); return; }
		catchUp();
		say("live", "live, " + clock());
	};
	const catchUp = () => {
		if (late && !held && !pressing) { swap(JSON.parse(late)); late = null; }
	};
	// What is swapped between the press and the release of a button cannot be
	// clicked, and what is being selected is selected no more.
	addEventListener("pointerdown", () => { pressing = true; });
	for (const end of ["pointerup", "pointercancel", "blur"]) {
		addEventListener(end, () => { pressing = false; setTimeout(catchUp); });
	}
	hold.hidden = false;
	hold.addEventListener("click", toggle);

	// reveal opens the stack that an address leads to.
	const reveal = () => {
		const at = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
		if (!at) return;
		at.closest("details")?.setAttribute("open", "");
		at.focus({preventScroll: true});
		at.scrollIntoView({block: "start"});
	};
	addEventListener("hashchange", reveal);
	// The address may be the one that is there already.
	live.addEventListener("click", (e) => {
		const a = e.target.closest("a[href^='#']");
		if (a && a.getAttribute("href") === location.hash) reveal();
	});
	reveal();

	const go = (by) => {
		const all = [...live.querySelectorAll(".thread")];
		if (!all.length) return;
		const at = all.findIndex((t) => t.classList.contains("here"));
		const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.max(0, Math.min(all.length - 1, at + by))];
		all[at]?.classList.remove("here");
		next.classList.add("here");
		next.focus({preventScroll: true});
		next.scrollIntoView({block: "start"});
	};
	addEventListener("keydown", (e) => {
		if (e.ctrlKey || e.metaKey || e.altKey || help.open) return;
		if (e.target.matches("input")) {
			if (e.key === "Escape") e.target.blur();
			return;
		}
		switch (e.key) {
		case "/": document.getElementById("q").select(); break;
		case "j": go(1); break;
		case "k": go(-1); break;
		case "s": {
			const a = (live.querySelector(".here") || live.querySelector(".thread"))?.querySelector("[data-stack]");
			if (!a) return;
			a.click();
			break;
		}
		case "p": toggle(); break;
		case "?": help.showModal(); break;
		default: return;
		}
		e.preventDefault();
	});
})();
