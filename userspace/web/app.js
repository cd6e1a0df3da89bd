// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
// The sale page: countdown on the server's time, an order link before the opening, one order at the opening.
//
// The buyer's reference is 128 random bits made here and kept in localStorage; the order link (token) is kept beside it, so a reload, or an
// answer that got lost, leads to the same order. POST has no body and no extra header: the gate reads the first segment only.
"use strict";

const $ = (id) => document.getElementById(id);
const MINUTE = 60000;
const TOKEN_LEAD = 30 * MINUTE; // fetch the order link so long before the opening
const VIEW_EVERY = 15000;
const ORDER_TIMEOUT = 15000; // the daemon answers within ten seconds
const BACKOFF_MIN = 400;
const BACKOFF_MAX = 8000;

const slug = slugOfAddress();
let sale = null;        // the public view
let clockOffset = 0;    // server time - ours, ms
let offsetError = Infinity;
let token = null;       // {text, expires, quantity}
let tokenWait = null;   // a fetch of the token that is under way
let tokenRetryAt = 0;
let home = "";          // origin of the server that the order link is good at; "" = the one that this page is from
let ordering = false;
let done = false;       // nothing more to be had here

function slugOfAddress() {
	const path = location.pathname.match(/^\/sales\/([^/]+)\/?$/);
	if (path)
		return decodeURIComponent(path[1]);
	return new URLSearchParams(location.search).get("sale") || "";
}

// --- storage: the page works without it, it only forgets when it is reloaded ------------------------------------------------------------
function load(key) {
	try {
		return localStorage.getItem(key);
	} catch {
		return null;
	}
}

function save(key, value) {
	try {
		localStorage.setItem(key, value);
	} catch {
		// private mode, or no room
	}
}

function buyerReference() {
	let reference = load("sluice.buyer");
	if (!/^[0-9a-f]{32}$/.test(reference || "")) {
		reference = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
		save("sluice.buyer", reference);
	}
	return reference;
}
const buyer = buyerReference();
const tokenKey = "sluice.token." + slug;

// --- time ----------------------------------------------------------------------------------------------------------------------------------
const serverNow = () => Date.now() + clockOffset;

// The server's time is taken to be that of the middle of the round trip; of several measurements the one with the shortest trip counts, as long as
// the others agree with it. If one cannot be true beside it, a clock was stepped (at the end of a laptop's sleep, say), and the last one counts. The
// trip is measured by the clock that nobody steps.
function learnTime(serverTime, trip, received) {
	const error = trip / 2, offset = Date.parse(serverTime) - (received - error);
	if (!serverTime || (error > offsetError && Math.abs(offset - clockOffset) <= error + offsetError))
		return;
	offsetError = error;
	clockOffset = offset;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const jitter = (ms) => ms * (0.5 + Math.random());

function retryAfter(response, fallback) {
	const seconds = Number.parseInt(response.headers.get("Retry-After") || "", 10);
	return Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : fallback;
}

async function ask(method, path, body, timeout) {
	const options = {method, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(timeout)};
	if (body !== undefined) {
		options.body = JSON.stringify(body);
		options.headers = {"Content-Type": "application/json"};
	}
	const sent = performance.now();
	const response = await fetch(path, options);
	const trip = performance.now() - sent, received = Date.now();
	let json = null;
	try {
		json = await response.json();
	} catch {
		// the short form of a refusal has no body: its status says enough
	}
	if (json)
		learnTime(json.server_time, trip, received);
	return {status: response.status, json: json || {}, response};
}

// Where a shop has several servers, a buyer is at home at one of them. Another says which, and that one is asked then.
async function askHome(method, path, body, timeout) {
	try {
		const answer = await ask(method, home + path, body, timeout);
		const where = answer.status === 421 && answer.response.headers.get("Location");
		if (!where)
			return answer;
		home = new URL(where).origin;
		return await ask(method, where, body, timeout);
	} catch (error) {
		home = ""; // the server of this page will know whether that is still right
		throw error;
	}
}

// --- what is shown -------------------------------------------------------------------------------------------------------------------------
const WORDS = {
	token_invalid: "Your order link is not valid any more. The page is getting another one.",
	token_expired: "Your order link has expired. The page is getting another one.",
	wrong_network: "Your order link belongs to another network. Did you change from Wi-Fi to mobile? The page is getting another one.",
	unknown_sale: "There is no such sale here.",
	wrong_node: "Your order link is good at another server of this shop, and this one cannot say where that is.",
	sale_not_open: "The sale has not opened yet. Nothing is lost: the button works at the opening.",
	sold_out: "Sold out. Every unit has a buyer. If units come back, this page will say so.",
	already_ordered: "You have already ordered as many as one buyer may have.",
	sale_ended: "The sale is over.",
	rate_limited: "Too many requests from your network at once. The page waits a moment and asks again.",
	tokens_exhausted: "As many order links as this sale may have are out. The page keeps asking for one.",
	tokens_closed: "Order links for this sale come from the shop. Please follow the link that the shop gave you.",
	tokens_full: "The server has no room for another order link right now. The page keeps asking.",
	paused: "The sale is paused. Your place is not lost: the page asks again when it goes on.",
	unavailable: "Orders are closed for a moment, and nothing was taken. The page asks again.",
	writer_away: "The server is not ready yet. The page keeps asking.",
};
const STATES = {scheduled: "not open yet", open: "open", paused: "paused", sold_out: "sold out", ended: "over"};
const AVAILABILITY = {many: "Plenty left.", few: "Only a few left.", sold_out: "Nothing left at the moment."};

function say(text, kind) {
	const message = $("message");
	if (message.textContent !== text)
		message.textContent = text;
	message.className = kind || "";
}

const codeOf = (answer) => answer.json.code || {401: "token_invalid", 403: "wrong_network", 404: "unknown_sale", 410: "sale_ended",
	429: "rate_limited", 503: "unavailable"}[answer.status] || "";

function wordsFor(answer) {
	return WORDS[codeOf(answer)] || answer.json.detail || "The server answered with status " + answer.status + ".";
}

const two = (n) => String(n).padStart(2, "0");

function countdown(ms) {
	const seconds = Math.max(0, Math.ceil(ms / 1000));
	const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24, minutes = Math.floor(seconds / 60) % 60;
	const clock = (days || hours ? two(hours) + ":" : "") + two(minutes) + ":" + two(seconds % 60);
	return days ? days + " d " + clock : clock;
}

function stateNow() {
	if (!sale || sale.state === "ended" || sale.state === "paused")
		return sale ? sale.state : "";
	const now = serverNow();
	if (now >= Date.parse(sale.ends_at))
		return "ended";
	// Where the server has seen it open, our clock is not asked.
	if (sale.state === "scheduled" && now < Date.parse(sale.opens_at))
		return "scheduled";
	return sale.availability === "sold_out" ? "sold_out" : "open";
}

function draw() {
	if (!sale)
		return;
	const state = stateNow(), now = serverNow();
	const target = Date.parse(state === "scheduled" ? sale.opens_at : sale.ends_at);
	const left = countdown(target - now);

	$("state").textContent = STATES[state];
	$("state").className = "badge " + state;
	$("clock-label").textContent = state === "scheduled" ? "Opens in" : state === "ended" ? "The sale is over" : "Ends in";
	$("clock").textContent = state === "ended" ? "00:00" : left;
	$("availability").textContent = state === "open" || state === "sold_out" ? AVAILABILITY[sale.availability] : "";
	$("order").disabled = ordering || done || !token || state !== "open";
	$("order").textContent = ordering ? "Ordering …" : done ? "Ordered" : state === "scheduled" ? "Opens in " + left : state === "open" && !token ?
		"Getting your order link …" : "Order";
	document.title = (state === "scheduled" ? left + " · " : state === "open" ? "Open · " : "") + sale.slug;
}

function drawOnce() {
	const format = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "long"});
	$("name").textContent = sale.slug;
	$("window").textContent = format.format(new Date(sale.opens_at)) + " to " + format.format(new Date(sale.ends_at));
	const select = $("quantity");
	if (select.options.length !== sale.per_buyer) {
		select.replaceChildren(...Array.from({length: sale.per_buyer}, (_, i) => new Option(String(i + 1))));
		$("quantity-field").hidden = sale.per_buyer < 2;
	}
	if (token)
		select.value = String(token.quantity);
}

// What became of an order that is not the buyer's any more. Its token is spent: another order takes another link.
const OVER = {
	cancelled: "Your order was cancelled.",
	expired: "Your order was not paid in time and has expired.",
	refunded: "Your order was refunded.",
};

function showOrder(order) {
	if (OVER[order.state]) {
		dropToken();
		say(OVER[order.state] + " You can order again while units are left.", "bad");
		return;
	}
	const format = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "medium"});
	done = true;
	$("receipt-seq").textContent = order.seq;
	$("receipt-quantity").textContent = order.quantity;
	$("receipt-id").textContent = order.id;
	$("receipt-time").textContent = format.format(new Date(order.admitted_at));
	$("receipt-state").textContent = order.state !== "held" ? order.state : order.expires_at ?
		"reserved for you until " + format.format(new Date(order.expires_at)) : "reserved for you";
	$("receipt").hidden = false;
	$("form").hidden = true;
	say("It is yours. The order is recorded.", "good");
	$("receipt").focus();
	document.title = "Ordered · " + slug;
}

// --- the sale's public view -----------------------------------------------------------------------------------------------------------------
async function readSale() {
	const answer = await ask("GET", "/v1/sales/" + encodeURIComponent(slug), undefined, 8000);
	if (answer.status === 200) {
		sale = answer.json;
		$("sale").setAttribute("aria-busy", "false");
		drawOnce();
		draw();
		return VIEW_EVERY;
	}
	if (!sale)
		say(wordsFor(answer), "bad");
	return retryAfter(answer.response, VIEW_EVERY);
}

async function watchSale() {
	for (let wait = BACKOFF_MIN; !done;) {
		try {
			await sleep(jitter(await readSale()));
			wait = BACKOFF_MIN;
		} catch {
			if (!sale)
				say("The server cannot be reached. The page keeps trying.", "bad");
			await sleep(jitter(wait));
			wait = Math.min(wait * 2, BACKOFF_MAX);
		}
	}
}

// --- the order link ---------------------------------------------------------------------------------------------------------------------------
function keepToken(json) {
	token = {text: json.token, expires: Date.parse(json.expires_at), quantity: json.quantity};
	save(tokenKey, JSON.stringify(token));
	drawOnce();
}

function dropToken() {
	token = null;
	save(tokenKey, "");
}

function loadToken() {
	try {
		const kept = JSON.parse(load(tokenKey) || "null");
		if (kept && /^[\w-]{64}$/.test(kept.text))
			token = kept;
	} catch {
		// not ours
	}
}

async function requestToken() {
	const quantity = Number($("quantity").value) || 1;
	const answer = await askHome("POST", "/v1/sales/" + encodeURIComponent(slug) + "/tokens", {buyer, quantity}, 8000);
	if (answer.status === 200 || answer.status === 201) {
		keepToken(answer.json);
		if (stateNow() === "scheduled")
			say("Your order link is ready. It works from the opening on.");
		else if (!ordering)
			say("");
		return;
	}
	say(wordsFor(answer), "bad");
	tokenRetryAt = Date.now() + jitter(retryAfter(answer.response, 5000));
}

// Fetches the order link when it is time to. Those who are early do not all come in the same second.
function tendToken() {
	if (done || ordering || tokenWait || !sale || Date.now() < tokenRetryAt)
		return;
	const state = stateNow();
	if (token && token.expires > serverNow() + 5000)
		return;
	if (state === "ended" || (state === "scheduled" && Date.parse(sale.opens_at) - serverNow() > TOKEN_LEAD))
		return;
	const delay = state === "scheduled" ? Math.random() * Math.min(10000, (Date.parse(sale.opens_at) - serverNow()) / 2) : Math.random() * 300;
	tokenWait = sleep(delay).then(requestToken).catch(() => {
		tokenRetryAt = Date.now() + jitter(2000);
	}).finally(() => {
		tokenWait = null;
		draw();
	});
}

// --- the order ----------------------------------------------------------------------------------------------------------------------------------
// true: decided, one way or the other. Else how long to wait before asking again, in ms.
function judgeAnswer(answer, backoff) {
	if (answer.status === 200 || answer.status === 201) {
		showOrder(answer.json);
		return true;
	}
	if (answer.status === 202) {
		say("You have been admitted: the unit is yours. The order is being written down …", "good");
		return retryAfter(answer.response, 1000);
	}
	const code = codeOf(answer);
	say(wordsFor(answer), "bad");
	if (code === "token_invalid" || code === "token_expired" || code === "wrong_network") {
		dropToken();
		return true;
	}
	if (code === "rate_limited" || code === "paused" || code === "unavailable" || code === "sale_not_open" || answer.status >= 500)
		return retryAfter(answer.response, backoff);
	if (code === "sold_out" && sale)
		sale.availability = "sold_out";
	if (code === "sale_ended" && sale)
		sale.state = "ended";
	return true;
}

async function order() {
	if (ordering || done || !token)
		return;
	const path = "/v1/orders/" + token.text;
	let backoff = BACKOFF_MIN;
	ordering = true;
	say("Asking …");
	draw();
	for (;;) {
		let wait;
		try {
			wait = judgeAnswer(await askHome("POST", path, undefined, ORDER_TIMEOUT), backoff);
		} catch {
			say("The answer got lost on the way. The page asks again with the same order link; you cannot order twice by that.");
			wait = backoff;
		}
		if (wait === true)
			break;
		await sleep(jitter(wait));
		backoff = Math.min(backoff * 2, BACKOFF_MAX);
	}
	ordering = false;
	draw();
}

// A reload after an order shows the order again.
async function resumeOrder() {
	if (!token)
		return;
	for (let backoff = BACKOFF_MIN; !done && backoff < BACKOFF_MAX; backoff *= 2) {
		try {
			const answer = await askHome("GET", "/v1/orders/" + token.text, undefined, 8000);
			if (answer.status === 200 && answer.json.state !== "pending")
				showOrder(answer.json);
			if (answer.status === 401)
				dropToken();
			if (answer.status === 200 ? done || !token : answer.status < 500 && answer.status !== 429)
				return;
		} catch {
			// asked again below
		}
		await sleep(jitter(backoff));
	}
}

$("form").addEventListener("submit", (event) => {
	event.preventDefault();
	order();
});
$("quantity").addEventListener("change", () => {
	// A link asks for a number of units; another number needs another link. Both are good for one order, whichever comes first.
	if (ordering || done)
		return;
	dropToken();
	tokenRetryAt = 0;
	draw();
});

async function start() {
	if (!slug) {
		say("Which sale? The address of this page should be /sales/ and the name of the sale.", "bad");
		$("sale").setAttribute("aria-busy", "false");
		return;
	}
	$("name").textContent = slug;
	loadToken();
	watchSale();
	await resumeOrder();
	setInterval(() => {
		tendToken();
		if (!done)
			draw();
	}, 200);
}

start();
