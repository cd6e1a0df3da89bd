/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The one list of problem codes: what a client can be told, what it means, and what to do about it. From it come the pages that `type` of a
 * problem document leads to, and docs/problems.md. A code that is answered and is not here fails a test.
 */
#ifndef SLUICE_DAEMON_PROBLEMS_H
#define SLUICE_DAEMON_PROBLEMS_H

#include <stddef.h>

#define PROBLEM_TYPE_PREFIX "/problems/"

struct problem_text {
	const char *code;
	const char *statuses; /* HTTP status codes that it comes with */
	const char *meaning;
	const char *remedy;
};

/* One line is one problem. */
/* clang-format off */
#define PROBLEMS(X) \
	/* what a buyer is told, by the gate or by the daemon */ \
	X("token_invalid", "401", "The order link is no token of this shop: it is malformed, forged, revoked, signed with a retired key, or asks for more than a buyer may have.", "Ask for a token again, and use its text unchanged.") \
	X("token_expired", "401", "The token is past its expiry.", "Ask for a token again.") \
	X("wrong_network", "403", "The token is bound to the network that asked for it, and this request comes from another.", "Order from the network that asked for the token, or ask for one from here.") \
	X("unknown_sale", "404", "There is no sale of that name on this node.", "Check the slug; the operator sees all sales with `sluice sale list`.") \
	X("sale_not_open", "409", "The sale has not opened yet.", "Try again after the seconds of Retry-After.") \
	X("sold_out", "409", "Fewer units are free than the request asks for.", "Units may return when held orders are not confirmed. Nothing was taken.") \
	X("already_ordered", "409", "The buyer has as many units as a buyer may have, or has ordered 256 times, or this token was admitted before.", "Look at the order: GET /v1/orders/{token}.") \
	X("sale_ended", "409, 410", "The sale is over; that is final.", "An operator creates another sale.") \
	X("wrong_node", "421", "The token, or the buyer who asks for one, belongs to another node of the shop.", "Send the same request to the address in Location. Without one, this node does not know where that is: its config does not list the node.") \
	X("rate_limited", "429", "More requests came from this source, its network, this buyer or this token than the limits allow, or the sale sells at a set pace.", "Try again after the seconds of Retry-After.") \
	X("paused", "503", "The operator has paused the sale.", "Try again after the seconds of Retry-After.") \
	X("unavailable", "503", "Orders are closed for a moment. Nothing was taken.", "Try again after the seconds of Retry-After.") \
	X("tokens_closed", "403", "Tokens of this shop are not given to whoever asks.", "The shop's own backend issues them over the control API.") \
	X("token_revoked", "403", "The token of this buyer was revoked.", "Only the shop's own backend can issue another one.") \
	X("tokens_exhausted", "429", "As many tokens as the sale may have are out.", "Try again after the seconds of Retry-After; expired tokens make room.") \
	X("tokens_full", "503", "The gate has no room for another live token.", "Raise gate.max_tokens and attach the gate again.") \
	X("no_order", "404", "This token was never admitted, or there is no order of this id.", "Check the id; an order is made by POST /v1/orders/{token}.") \
	/* what is wrong with a request */ \
	X("malformed_json", "400", "The body is not a JSON object.", "The detail names line and column.") \
	X("malformed_path", "400", "The path has an escape that cannot be read, or a part that is too long.", "Percent-encode it as RFC 3986 says.") \
	X("malformed_header", "400", "A header has a value that cannot be read.", "The detail names the header.") \
	X("malformed_headers", "400", "The headers are not those of one HTTP request.", "Send one Content-Length or Transfer-Encoding: chunked, not both or several.") \
	X("unknown_field", "400", "The body has a field that is not known here.", "`field` names it; see /v1/openapi.json for those that are.") \
	X("missing_field", "400", "The body lacks a field.", "The detail names it.") \
	X("wrong_type", "400", "A field has a value of another JSON type.", "`field` names it, the detail says what it must be.") \
	X("out_of_range", "422", "A value is out of its range.", "`field` names it, the detail gives the range.") \
	X("body_too_long", "413", "The body is longer than this route takes, or makes more list entries than one request may.", "Send less at a time.") \
	X("not_found", "404", "There is nothing at this path.", "See /v1/openapi.json for what there is.") \
	X("method_not_allowed", "405", "The path is there, the method is not.", "The header Allow lists the methods.") \
	X("precondition_failed", "412", "What If-Match or If-None-Match expects is not so: somebody changed it meanwhile.", "Read it again, and decide again.") \
	/* control */ \
	X("no_secret", "401", "The control API over TCP wants the control secret.", "Send it as Authorization: Bearer; it is in control.secret in the state directory.") \
	X("wrong_secret", "401", "This is not the control secret.", "It is in control.secret in the state directory.") \
	X("too_many_sales", "409", "The gate's table of sales is full, and none of them is over for good.", "End sales, and wait until their tokens have expired.") \
	X("too_many_watchers", "503", "As many watch as can at a time: verdicts (/v1/events, /v1/top and the commands that use them) or the ledger's events (/v1/events/ledger).", "Try again after the seconds of Retry-After, or end one of the others.") \
	X("webhooks_off", "409", "The daemon posts events nowhere.", "Set daemon.webhook_url in the config and start the daemon again.") \
	X("fleet_away", "503", "Redis cannot be asked now, or has not answered in time, and this is not done without it.", "The detail says whether anything was changed. What this node holds it goes on selling.") \
	X("fleet_behind", "503", "The fleet has a sale of that name already, and this node has just heard of it. Nothing was changed.", "Send the same request again after the seconds of Retry-After.") \
	X("fleet_settling", "503", "Redis has lost its memory and waits until every node has told it what it holds. Nothing was changed.", "Try again after the seconds of Retry-After; fence a node that does not come back.") \
	X("node_is_alive", "409", "The node was heard of just now, and may be selling. Nothing was changed.", "Stop it, and ask again; or send \"force\":true.") \
	X("no_node", "404", "Neither the config of this node nor Redis knows such a node.", "GET /v1/nodes lists them.") \
	X("no_fleet", "409", "This node is alone: there are no other nodes to tell of.", "Set fleet.redis in the config and start the daemon again.") \
	X("stock_is_moved", "409", "The stock of a sale that exists is not set but moved.", "POST /v1/sales/{slug}/stock with a delta.") \
	X("not_enough_free", "409", "More units were to be taken away than are free.", "The field `free` says how many are.") \
	X("key_in_use", "409", "A rotation now would refuse tokens that are still valid.", "Wait until the time in the detail, or send {\"force\":true}; a node that is down can be left out.") \
	X("other_secret", "409", "This node's fleet has another secret than this node, so neither would accept the other's tokens; the node sells nothing.", "Copy the secret file of a node that sells, and start the daemon again.") \
	X("no_token", "404", "The buyer has no live token of this sale.", "") \
	X("no_entry", "404", "There is no such entry on the list.", "Name the prefix as the list shows it.") \
	X("list_full", "507", "The gate's map of list entries has no room for all that was sent. Nothing was added.", "Remove entries, or raise gate.max_prefixes and attach the gate again.") \
	X("bad_entry", "422", "An entry of a bulk load, or a line of it, cannot be an entry of a list. Nothing was changed.", "`field` names the entry or the line; leave it out or correct it.") \
	X("too_wide", "422", "A bulk load has a prefix wider than an IPv4 /8 or an IPv6 /16. Nothing was changed.", "Send `force` if it is meant.") \
	X("unsupported_type", "415", "The body has a media type that this route does not read.", "The detail names those that it reads.") \
	X("no_answer", "404", "There is no answer of this code.", "GET /v1/answers lists them.") \
	X("answer_too_long", "422", "With its headers an answer would not fit one segment. Nothing was changed.", "The fields `size` and `limit` say by how much; `answer` says which.") \
	X("admissions_full", "507", "The gate's map of admissions is full.", "Raise gate.max_admissions and attach the gate again.") \
	X("hold_expired", "409", "The order's hold has expired, and it can have its units no more: none is free, or its buyer has others by now. Nothing was changed.", "Give the payment back.") \
	X("order_state", "409", "The state of the order does not allow this. Nothing was changed.", "The detail names the state; GET /v1/orders/{id} tells the rest.") \
	X("key_reused", "422", "The Idempotency-Key came before with another request. Nothing was changed.", "Give each change a key of its own, and send the same request with it.") \
	X("conflict", "409", "The ledger refused the change as it does not fit what it has.", "Read it again, and decide again.") \
	X("writer_away", "503", "The order writer is not there, or did not answer in time.", "The detail says whether anything was changed. Look at the writer's log.") \
	X("internal_error", "500", "Something failed that should not.", "Look at the daemon's log.")
/* clang-format on */

/* Ends with an entry without a code. */
extern const struct problem_text problem_texts[];
/* NULL if there is none of that code. */
const struct problem_text *problem_find(const char *code);

#endif
