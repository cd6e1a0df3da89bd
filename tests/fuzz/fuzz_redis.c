/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: what a node makes of what Redis answers (userspace/fleet: lease.c, lease_book.c, settings.c, settings_sync.c, redis_slots.c), as a Redis
 * may answer that is broken, of another version or somebody else's.
 *
 * The input is a letter for whose answers they are, and steps. Claims: whatever is answered, a node sells no unit that did not come to it; what it writes
 * into its ledger or its file it can read again; it never goes back to an earlier generation or epoch, and never waits for a time that is over; its tables
 * and queues agree; and an answer is taken whole or not at all.
 */
#include <errno.h>

#include "check.h"
#include "fleet/lease.h"
#include "fleet/redis_slots.h"
#include "fleet/settings_sync.h"
#include "reply.h"

#define TEXT_MAX 512
#define STEPS_MAX 64
#define MS 1000000ULL

/* --- a lease -------------------------------------------------------------------------------------------------------------------------- */
enum { WITH_OVER = 1, WITH_LEAVING = 2, WITH_LOOK = 4, WITH_RESTART = 8, WITH_A_DAY = 16 };
/* What comes of a call, or of a move: nobody knows, it fails, an answer as Redis sends it, or an honest one with up to three texts of the input. */
enum { UNKNOWN, FAILS, RAW, PATCHED_1, PATCHED_2, PATCHED_3 };

struct node {
	struct lease lease;
	struct lease_options options;
	struct lease_book ledger;
	struct lease_view view;
	int64_t sold, came; /* units; went is below zero */
};

static void check_book(const struct node *node, const struct lease_book *book)
{
	char text[LEASE_BOOK_TEXT_MAX], again_text[LEASE_BOOK_TEXT_MAX];
	struct lease_book again;

	lease_book_encode(book, text);
	CHECK(strlen(text) < sizeof(text) - 1, "a book of %zu bytes", strlen(text));
	CHECK(!lease_book_decode(&again, text), "a book that cannot be read again: %s", text);
	lease_book_encode(&again, again_text);
	CHECK(!strcmp(text, again_text), "%s became %s", text, again_text);
	CHECK(lease_generation_number(book->generation) >= lease_generation_number(node->ledger.generation),
		"back to %s", book->generation);
	CHECK(book->epoch >= node->ledger.epoch, "back to epoch %lld", (long long)book->epoch);
	CHECK(book->seq >= node->ledger.seq, "back to operation %lld", (long long)book->seq);
}

static void check_members(const struct lease_members *members)
{
	char text[LEASE_MEMBERS_TEXT_MAX];
	struct lease_members again;

	CHECK(lease_members_encode(members, text) == strlen(text), "length");
	CHECK(!lease_members_decode(&again, text) && lease_members_cover(&again, members) &&
			lease_members_cover(members, &again),
		"members %s", text);
}

static bool decode(struct lease_reply *reply, const char *const *texts, const size_t *lengths, size_t count)
{
	struct lease_reply before;
	int err;

	memset(&before, 0x55, sizeof(before));
	memcpy(reply, &before, sizeof(before));
	err = lease_reply_decode(reply, texts, lengths, count);
	CHECK(!err || (err == -EPROTO && !memcmp(reply, &before, sizeof(before))), "%d, or a part of it was taken",
		err);
	if (err)
		return false;
	CHECK(reply->answer <= LEASE_STALE && reply->row.op <= LEASE_OP_RETURN, "a name");
	CHECK(reply->total >= 0 && reply->total <= LEASE_UNITS_MAX && reply->row.units >= 0 &&
			reply->row.units <= LEASE_UNITS_MAX && reply->row.seq >= 0 && reply->row.seq <= LEASE_COUNT_MAX,
		"a number out of its range");
	CHECK(lease_operation_is_valid(reply->operation) && lease_generation_number(reply->generation) >= 0, "a word");
	CHECK(strlen(reply->run) < sizeof(reply->run), "a text");
	check_members(&reply->missing);
	check_members(&reply->members);
	return true;
}

/* Texts of an answer as Redis gives them; 0 of one that is none. */
static size_t read_raw(struct input *input, redisReply **raw, const char **texts, size_t *lengths)
{
	size_t count;

	*raw = reply_read(input);
	if ((*raw)->type != REDIS_REPLY_ARRAY || (*raw)->elements > LEASE_REPLY_TEXTS)
		return 0;
	for (count = 0; count < (*raw)->elements; count++) {
		if ((*raw)->element[count]->type != REDIS_REPLY_STRING)
			return 0;
		texts[count] = (*raw)->element[count]->str;
		lengths[count] = (*raw)->element[count]->len;
	}
	return count;
}

/* What an honest Redis says, but for some texts that the input has in their places. */
static bool read_answer(struct node *node, const struct lease_call *call, unsigned count, struct input *input,
	struct lease_reply *reply)
{
	const char *generation = lease_call_argument(call, 0);
	bool is_grant = !strcmp(call->script, "grant");
	int64_t units = is_grant ? strtoll(lease_call_argument(call, call->count - 2), NULL, 10) : 0;
	char numbers[4][24], patches[3][TEXT_MAX];
	const char *texts[LEASE_REPLY_TEXTS] = {*generation ? "ok" : "regen", *generation ? generation : "1-a", "open",
		"1000", "1", "op", "500", "0", "0", "", "1,2", numbers[0], numbers[1], is_grant ? "grant" : "none",
		numbers[2], numbers[3], "0", "0", "1", "run", "1000", numbers[1]};
	size_t lengths[LEASE_REPLY_TEXTS], length;

	snprintf(numbers[0], sizeof(numbers[0]), "%lld", (long long)node->ledger.epoch);
	snprintf(numbers[1], sizeof(numbers[1]), "%s", lease_call_argument(call, 3));
	snprintf(numbers[2], sizeof(numbers[2]), "%lld", (long long)units);
	snprintf(numbers[3], sizeof(numbers[3]), "%lld", (long long)(node->ledger.balance + units));
	for (unsigned i = 0; i < count; i++) {
		unsigned at = input_u8(input) % LEASE_REPLY_TEXTS;
		const uint8_t *line = reply_line(input, &length);

		snprintf(patches[i], sizeof(patches[i]), "%.*s", (int)(length < TEXT_MAX ? length : TEXT_MAX - 1),
			length ? (const char *)line : "");
		texts[at] = patches[i];
	}
	for (unsigned i = 0; i < LEASE_REPLY_TEXTS; i++)
		lengths[i] = strlen(texts[i]);
	return decode(reply, texts, lengths, LEASE_REPLY_TEXTS);
}

static void do_call(struct node *node, const struct lease_call *call, unsigned how, struct input *input)
{
	const char *texts[LEASE_REPLY_TEXTS];
	size_t lengths[LEASE_REPLY_TEXTS];
	struct lease_reply reply;
	redisReply *raw = NULL;
	bool is_read = false;

	CHECK(call->count <= LEASE_ARGUMENTS_MAX && call->used <= sizeof(call->text), "room of a call");
	CHECK(!strcmp(call->script, "settle") || !strcmp(call->script, "grant") || !strcmp(call->script, "return"),
		"script %s", call->script);
	if (how == RAW)
		is_read = decode(&reply, texts, lengths, read_raw(input, &raw, texts, lengths));
	else if (how > RAW)
		is_read = read_answer(node, call, how <= PATCHED_3 ? how - RAW : 0, input, &reply);
	lease_called(&node->lease,
		is_read                ? LEASE_ANSWERED
			: how == FAILS ? LEASE_NOT_DONE
				       : LEASE_UNKNOWN,
		is_read ? &reply : NULL, node->view.now_ns);
	if (raw)
		freeReplyObject(raw);
}

static void do_move(struct node *node, const struct lease_action *action, unsigned how)
{
	CHECK(action->units >= -node->view.unsold, "%lld units out of %lld", (long long)action->units,
		(long long)node->view.unsold);
	CHECK(action->book.balance == node->ledger.balance + action->units, "a book that does not follow its move");
	check_book(node, &action->book);
	if (how > FAILS) {
		node->ledger = action->book;
		node->came += action->units;
		node->view.unsold += action->units;
	}
	lease_moved(&node->lease, how == UNKNOWN ? -EAGAIN : how == FAILS ? -EIO : 0, node->view.now_ns);
}

static void turn(struct node *node, struct input *input)
{
	uint8_t with = input_u8(input);
	uint64_t ms = input_u8(input) * 20ULL;
	int64_t sells = input_u8(input);
	uint8_t wanted = input_u8(input), how = input_u8(input);
	struct lease_action action;
	struct lease_flags flags;

	if (with & WITH_RESTART)
		lease_init(&node->lease, &node->options,
			node->ledger.seq || *node->ledger.generation ? &node->ledger : NULL);
	if (with & WITH_LOOK)
		lease_look(&node->lease);
	lease_flags(&node->lease, &flags);
	sells = flags.withheld ? 0 : sells > node->view.unsold ? node->view.unsold : sells;
	node->view.now_ns += (with & WITH_A_DAY ? 86400000ULL : ms) * MS;
	node->view.unsold -= sells;
	node->view.admitted += (uint64_t)sells;
	node->view.wanted += wanted;
	node->view.over = with & WITH_OVER;
	node->view.leaving = with & WITH_LEAVING;
	node->sold += sells;
	lease_next(&node->lease, &node->view, &action);
	if (action.kind == LEASE_CALL)
		do_call(node, &action.call, how, input);
	else if (action.kind == LEASE_MOVE)
		do_move(node, &action, how);
	else
		CHECK(action.until_ns > node->view.now_ns, "waits for what is over");
	CHECK(node->view.unsold >= 0 && node->view.unsold + node->sold == node->came &&
			node->ledger.balance == node->came,
		"%lld came, %lld sold, %lld unsold", (long long)node->came, (long long)node->sold,
		(long long)node->view.unsold);
	CHECK(*lease_trouble_name(lease_trouble(&node->lease)), "trouble without a name");
	(void)lease_is_left(&node->lease, &node->view);
}

static void try_lease(struct input *input)
{
	struct node node = {
		.options = {.node = 1, .lease_ms = 2000, .channel = "sluice:{sale}:look", .origin = "0123456789abcdef"},
		.view = {.now_ns = 1000 * MS, .order_max = 2},
	};

	if (input_u8(input) & 1)
		node.options.fence_after_ms = 5000;
	lease_members_decode(&node.options.members, "1,2");
	lease_init(&node.lease, &node.options, NULL);
	for (unsigned i = 0; input->left && i < STEPS_MAX; i++)
		turn(&node, input);
}

/* --- settings -------------------------------------------------------------------------------------------------------------------------- */
enum { SET, SET_FINAL, REMOVE, ADOPT, ASK, ASK_IN_VAIN, WORK, SETTINGS_STEPS };

static void check_settings(const struct settings *table, const struct settings_sync *sync)
{
	size_t count = 0, live = 0, dirty = 0, unsure = 0, due = 0;
	char text[2 * SETTINGS_VALUE_MAX], again_text[2 * SETTINGS_VALUE_MAX], gen[SETTINGS_GEN_SIZE] = "";
	const struct setting *setting;

	TAILQ_FOREACH(setting, &table->all, in_all)
	{
		struct setting_view view;
		struct setting again;

		CHECK(settings_find(table, setting->name) == setting, "%s is there twice, or not at all",
			setting->name);
		/* As in the file, where a line is a setting, and one with an "@" is a place. */
		CHECK(setting_name_is_valid(setting->name) && *setting->name != '@', "name \"%s\"", setting->name);
		CHECK(setting_format(setting, text, sizeof(text)) < (int)sizeof(text), "%s is too long", setting->name);
		CHECK(!strpbrk(text, "\r\n"), "%s has a line end", setting->name);
		memcpy(again_text, text, strlen(text) + 1);
		CHECK(!setting_parse(again_text, &view), "cannot be read again: %s", text);
		again = (struct setting){
			.stamp = view.stamp, .until_ms = view.until_ms, .value = (char *)(uintptr_t)view.value};
		CHECK(again.stamp.version == setting->stamp.version && again.stamp.node == setting->stamp.node &&
				again.stamp.is_final == setting->stamp.is_final &&
				again.until_ms == setting->until_ms && !again.value == !setting->value &&
				(!again.value || !strcmp(again.value, setting->value)),
			"%s reads as another", setting->name);
		CHECK(!(setting->flags & SETTING_ASKED), "%s is still asked for", setting->name);
		count++;
		live += setting->value != NULL;
		dirty += (setting->flags & SETTING_DIRTY) != 0;
		unsure += (setting->flags & SETTING_UNSURE) != 0;
		due += (setting->flags & SETTING_DUE) != 0;
	}
	CHECK(count == table->count && live == table->live && dirty == table->dirty_count &&
			unsure == table->unsure_count && due == table->due_count,
		"counts");
	CHECK(!*sync->gen || (sscanf(sync->gen, "%63s", gen) == 1 && !strcmp(gen, sync->gen)), "generation \"%s\"",
		sync->gen);
}

static void ask(struct settings_sync *sync, struct input *input, bool is_lost)
{
	static const struct settings_more more = {.channel = "c", .highest_sale = 1, .busy = ""};
	struct settings_question question;
	redisReply *reply;
	int err;

	CHECK(!settings_sync_ask(sync, &more, &question), "memory");
	settings_question_free(&question);
	if (is_lost) {
		settings_sync_lost(sync);
		return;
	}
	reply = reply_read(input);
	err = settings_sync_take(sync, reply);
	CHECK(!err || err == -EPROTO, "%d", err);
	freeReplyObject(reply);
}

static void try_settings(struct input *input)
{
	static const char *const names[] = {"limit/source", "deny/192.0.2.0/24", "sale/drop-11", "shadow/all"};
	static const char *const values[] = {"{}", "1", "x y"};
	struct settings *table = settings_new(1);
	struct settings_sync sync;
	struct setting *setting;

	CHECK(table, "memory");
	settings_sync_init(&sync, table, "life");
	for (unsigned i = 0; input->left && i < STEPS_MAX; i++) {
		uint8_t what = input_u8(input);
		const char *name = names[what >> 3 & 3], *value = values[(what >> 5) % 3];

		switch ((what & 7) % SETTINGS_STEPS) {
		case SET:
			CHECK(settings_set(table, name, value, 0, false) >= 0, "memory");
			break;
		case SET_FINAL:
			CHECK(settings_set(table, name, value, 0, true) >= 0, "memory");
			break;
		case REMOVE:
			CHECK(settings_set(table, name, NULL, 0, false) >= 0, "memory");
			break;
		case ADOPT:
			CHECK(settings_adopt(table, name, value, 1000, false) >= 0, "memory");
			break;
		case ASK:
			ask(&sync, input, false);
			break;
		case ASK_IN_VAIN:
			ask(&sync, input, true);
			break;
		default:
			while ((setting = settings_take_due(table)))
				if (what & 8)
					settings_refuse(table, setting);
			while (settings_take_unsaved(table))
				;
			settings_forget_old(table, what & 16 ? UINT64_MAX / 2 : 0, 100);
		}
		check_settings(table, &sync);
	}
	settings_free(table);
}

/* --- a cluster -------------------------------------------------------------------------------------------------------------------------- */
static void check_address(const struct redis_address *address)
{
	CHECK(strnlen(address->host, sizeof(address->host)) < sizeof(address->host), "host");
	CHECK(address->port >= 1 && address->port <= 65535, "port %u", address->port);
}

static void tell(void *arg, unsigned first, unsigned last, const struct redis_address *master)
{
	unsigned *told = arg;

	CHECK(first <= last && last < REDIS_SLOTS, "slots %u to %u", first, last);
	check_address(master);
	(*told)++;
}

static void try_slots(struct input *input)
{
	redisReply *reply = reply_read(input);
	unsigned told = 0;
	int err = redis_slots_read(reply, tell, &told);

	CHECK(err ? err == -EPROTO && !told : told == reply->elements, "%d, and %u ranges", err, told);
	freeReplyObject(reply);
}

static void try_text(struct input *input)
{
	struct redis_address address, again;
	char *text = malloc(input->left + 1), out[TEXT_MAX];
	unsigned slot, slot_again;

	CHECK(text, "memory");
	if (input->left)
		memcpy(text, input->at, input->left);
	text[input->left] = '\0';
	CHECK(redis_slot_of(text, input->left) < REDIS_SLOTS, "slot");
	if (!redis_redirect_read(text, &slot, &address)) {
		check_address(&address);
		snprintf(out, sizeof(out), "MOVED %u %s:%u", slot, address.host, address.port);
		CHECK(slot < REDIS_SLOTS && !redis_redirect_read(out, &slot_again, &again) && slot == slot_again &&
				!strcmp(address.host, again.host) && address.port == again.port,
			"\"%s\" became \"%s\"", text, out);
	}
	if (!redis_address_read(text, input->left, &address)) {
		check_address(&address);
		CHECK(*address.host, "\"%s\" has no host", text);
		snprintf(out, sizeof(out), *text == '[' ? "[%s]:%u" : "%s:%u", address.host, address.port);
		CHECK(!redis_address_read(out, strlen(out), &again) && !strcmp(address.host, again.host) &&
				address.port == again.port,
			"\"%s\" became \"%s\"", text, out);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, size};

	switch (input_u8(&input)) {
	case 'l':
		try_lease(&input);
		break;
	case 's':
		try_settings(&input);
		break;
	case 'c':
		try_slots(&input);
		break;
	case 't':
		try_text(&input);
		break;
	default:
		return -1;
	}
	return 0;
}
