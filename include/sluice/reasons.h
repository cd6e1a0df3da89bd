/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The one list of reasons: every packet and every judged request ends with exactly one of them.
 *
 * From this list come the enum, the per-CPU counter rows, the metric label `reason`, `sluice stats`, the table in
 * docs/reasons.md and the check that every answer code is a known one. Add at the end of a group; the number is part of
 * the ABI (it is the counter's row), so a change of order needs a new SLUICE_ABI_VERSION.
 *
 * X(NAME, label, ACTION, ANSWER, text)
 *   ACTION  PASS: up to the kernel. DROP: silently gone. TX: a bare TCP segment goes back. ANSWER: a complete HTTP answer.
 *   ANSWER  the answer's code (see SLUICE_ANSWERS), NONE where the action is not ANSWER.
 */
#ifndef SLUICE_REASONS_H
#define SLUICE_REASONS_H

/* One line is one reason. */
/* clang-format off */
#define SLUICE_REASONS(X) \
	X(NONE, "none", DROP, NONE, "not decided; never counted unless the gate has a defect") \
	/* passed */ \
	X(UNPROTECTED, "unprotected", PASS, NONE, "not for a protected service") \
	X(NO_LISTENER, "no_listener", PASS, NONE, "SYN to a protected port on which nobody listens: the kernel refuses it") \
	X(SOCKET, "socket", PASS, NONE, "belongs to a connection that the kernel has") \
	X(FOLLOWS, "follows", PASS, NONE, "follows a first segment that went up a moment ago: the kernel is making the socket of it") \
	X(REQUEST, "request", PASS, NONE, "first segment of a connection that asks for something other than an order") \
	X(REQUEST_UNREAD, "request_unread", PASS, NONE, "an order that the first segment does not show whole: the call door judges it") \
	X(TCP_FIRST, "tcp_first", PASS, NONE, "first data of a connection to a service of kind tcp") \
	X(ADMITTED, "admitted", PASS, NONE, "admitted: token spent, buyer counted, units taken") \
	X(ADMITTED_AGAIN, "admitted_again", PASS, NONE, "a token that was admitted before: the same order again, nothing taken") \
	X(SHADOWED, "shadowed", PASS, NONE, "would have been dropped or answered, but the whole gate is in shadow mode; map `shadow` has the reason") \
	/* bare TCP segments sent back */ \
	X(SYN_COOKIE, "syn_cookie", TX, NONE, "SYN answered with a SYN cookie") \
	X(LEFTOVER, "leftover", TX, NONE, "data or FIN of a connection that the gate answered: acknowledged, so that the client can close") \
	/* dropped: cannot be read */ \
	X(ETH_MALFORMED, "eth_malformed", DROP, NONE, "frame ends inside the Ethernet or VLAN header") \
	X(VLAN_DEPTH, "vlan_depth", DROP, NONE, "more than two VLAN tags") \
	X(IP4_MALFORMED, "ip4_malformed", DROP, NONE, "IPv4 header or length is wrong") \
	X(IP6_MALFORMED, "ip6_malformed", DROP, NONE, "IPv6 header, extension header or length is wrong") \
	X(IP6_EXTENSIONS, "ip6_extensions", DROP, NONE, "more than eight IPv6 extension headers") \
	X(TCP_MALFORMED, "tcp_malformed", DROP, NONE, "TCP header ends early or has an impossible length") \
	X(FRAGMENT, "fragment", DROP, NONE, "IP fragment to a protected port") \
	X(TCP_FLAGS, "tcp_flags", DROP, NONE, "a combination of TCP flags that no stack sends") \
	X(SYN_DATA, "syn_data", DROP, NONE, "SYN that carries data") \
	X(SYN_FIN, "syn_fin", DROP, NONE, "SYN and FIN together") \
	X(SYN_RST, "syn_rst", DROP, NONE, "SYN and RST together") \
	/* dropped: lists, budgets, handshake */ \
	X(DENIED, "denied", DROP, NONE, "source is on the deny list") \
	X(SYN_PREFIX, "syn_prefix", DROP, NONE, "SYN budget of the source's prefix is used up") \
	X(SYN_GLOBAL, "syn_global", DROP, NONE, "global SYN budget is used up, and the source was never proved real") \
	X(ACCEPT_FULL, "accept_full", DROP, NONE, "no cookie: the listener's accept queue is full, or net.ipv4.tcp_syncookies is not 2") \
	X(COOKIE_FAILED, "cookie_failed", DROP, NONE, "the kernel could not make a cookie for this SYN") \
	X(BARE_ACK, "bare_ack", DROP, NONE, "ACK without data and without a socket: end of a handshake or of a refused connection") \
	X(LEFTOVER_UNKNOWN, "leftover_unknown", DROP, NONE, "data or FIN without a socket, of a connection that the gate did not answer: not acknowledged, because data before it may be missing") \
	X(RST_STRAY, "rst_stray", DROP, NONE, "RST without a socket") \
	X(RATE_DROP, "rate_drop", DROP, NONE, "over a rate, and the budget of 429 answers is used up (or nothing can be answered: a service of kind tcp, a SYN to a connection in TIME_WAIT)") \
	X(IN_PROGRESS, "in_progress", DROP, NONE, "the same token is being judged on another CPU at this moment: the client's retransmission gets the answer") \
	X(ANSWER_FAILED, "answer_failed", DROP, NONE, "an answer was due, but the frame has no room for it") \
	/* answered */ \
	X(RATE_SOURCE, "rate_source", ANSWER, RATE_LIMITED, "over the rate of its source address") \
	X(RATE_PREFIX, "rate_prefix", ANSWER, RATE_LIMITED, "over the rate of its wider prefix") \
	X(TOKEN_FORM, "token_form", ANSWER, TOKEN_INVALID, "not a token: wrong length, characters or version") \
	X(TOKEN_KEY, "token_key", ANSWER, TOKEN_INVALID, "signed with a key that is not in use") \
	X(TOKEN_MAC, "token_mac", ANSWER, TOKEN_INVALID, "signature does not match: forged or damaged") \
	X(TOKEN_QUANTITY, "token_quantity", ANSWER, TOKEN_INVALID, "asks for no unit, or for more than a buyer may have") \
	X(UNKNOWN_SALE, "unknown_sale", ANSWER, UNKNOWN_SALE, "no such sale on this node") \
	X(DAEMON_AWAY, "daemon_away", ANSWER, UNAVAILABLE, "the daemon's heartbeat is older than 2 s: orders are closed") \
	X(WRITER_AWAY, "writer_away", ANSWER, UNAVAILABLE, "the order writer cannot make orders durable: orders are closed") \
	X(NOT_OPEN, "not_open", ANSWER, SALE_NOT_OPEN, "before the opening") \
	X(PAUSED, "paused", ANSWER, PAUSED, "paused by the operator") \
	X(ENDED, "ended", ANSWER, SALE_ENDED, "after the end") \
	X(TOKEN_EXPIRED, "token_expired", ANSWER, TOKEN_EXPIRED, "token is past its expiry") \
	X(WRONG_NETWORK, "wrong_network", ANSWER, WRONG_NETWORK, "a bound token from another network") \
	X(SOLD_OUT, "sold_out", ANSWER, SOLD_OUT, "fewer units are free than the token asks for") \
	X(PACE, "pace", ANSWER, RATE_LIMITED, "over the pace of the sale") \
	X(RATE_TOKEN, "rate_token", ANSWER, RATE_LIMITED, "over the rate of one token") \
	X(BACKLOG, "backlog", ANSWER, UNAVAILABLE, "too many admissions wait for the order writer") \
	X(RING_FULL, "ring_full", ANSWER, UNAVAILABLE, "the ring to the daemon is full; no unit was taken") \
	X(ADMISSIONS_FULL, "admissions_full", ANSWER, UNAVAILABLE, "the map of admissions is full; no unit was taken") \
	X(BUYERS_FULL, "buyers_full", ANSWER, UNAVAILABLE, "the map of buyers is full; no unit was taken") \
	X(BUYER_LIMIT, "buyer_limit", ANSWER, ALREADY_ORDERED, "the buyer has as many units as a buyer may have") \
	X(CONTENDED, "contended", ANSWER, UNAVAILABLE, "too many CPUs wanted the same word at once; no unit was taken") \
	X(TOKEN_REVOKED, "token_revoked", ANSWER, TOKEN_INVALID, "revoked: this token, or all that were issued before a time") \
	X(WRONG_NODE, "wrong_node", ANSWER, WRONG_NODE, "a token of another node of the fleet: the answer says where") \
	X(UNITS_ELSEWHERE, "units_elsewhere", ANSWER, UNAVAILABLE, "too few units are here, but the fleet may have more for this node, or this node may not sell at the moment")

/* X(NAME, code, status, title, retry, detail): the answers that a buyer can get. `retry` tells if it has a Retry-After.
 * Default bodies are rendered from this by userspace/common/answers.c; docs/reasons.md lists them.
 */
#define SLUICE_ANSWERS(X) \
	X(NONE, "none", 0, "", 0, "") \
	X(TOKEN_INVALID, "token_invalid", 401, "Unauthorized", 0, "This order link is not valid.") \
	X(TOKEN_EXPIRED, "token_expired", 401, "Unauthorized", 0, "This order link has expired.") \
	X(WRONG_NETWORK, "wrong_network", 403, "Forbidden", 0, "This order link belongs to another network.") \
	X(UNKNOWN_SALE, "unknown_sale", 404, "Not Found", 0, "There is no such sale here.") \
	X(SALE_NOT_OPEN, "sale_not_open", 409, "Conflict", 1, "The sale has not opened yet.") \
	X(SOLD_OUT, "sold_out", 409, "Conflict", 0, "All units are taken.") \
	X(ALREADY_ORDERED, "already_ordered", 409, "Conflict", 0, "You have already ordered.") \
	X(SALE_ENDED, "sale_ended", 410, "Gone", 0, "The sale is over.") \
	X(WRONG_NODE, "wrong_node", 421, "Misdirected Request", 0, "This order link belongs to another node.") \
	X(RATE_LIMITED, "rate_limited", 429, "Too Many Requests", 1, "Too many requests.") \
	X(PAUSED, "paused", 503, "Service Unavailable", 1, "The sale is paused.") \
	X(UNAVAILABLE, "unavailable", 503, "Service Unavailable", 1, "Orders are closed for a moment. Nothing was taken.")

enum sluice_answer {
#define X(name, ...) SLUICE_ANSWER_##name,
	SLUICE_ANSWERS(X)
#undef X
	SLUICE_ANSWER_COUNT
};

enum sluice_action { SLUICE_ACTION_PASS, SLUICE_ACTION_DROP, SLUICE_ACTION_TX, SLUICE_ACTION_ANSWER };

enum sluice_reason {
#define X(name, ...) SLUICE_REASON_##name,
	SLUICE_REASONS(X)
#undef X
	SLUICE_REASON_COUNT
};

/* clang-format on */

/* Counter rows are a power of two, so that the gate computes the row with a shift. */
#define SLUICE_REASON_ROWS 64
_Static_assert(SLUICE_REASON_COUNT <= SLUICE_REASON_ROWS, "a reason without a counter row");

#endif
