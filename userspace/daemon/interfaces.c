/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's interfaces, looked at every other second; see interfaces.h.
 *
 * It costs the daemon no privilege. The pin directory and the links that are pinned at its start are opened before it gives up root's rights, and a link
 * says by its descriptor where it is, in whatever network namespace. A link that is pinned later (an interface that joins, or comes back) is
 * root's alone, as is a program in libxdp's dispatcher: of these the daemon knows the pin and the index of the interface, and that index does not come back once an
 * interface is gone. What it misses there is a program that is taken off by other means than sluice detach while the interface stays.
 *
 * A link that is held here is no hindrance to sluice detach, which detaches it before it removes the pin.
 */
#include "daemon/interfaces.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/pin_name.h"

struct pinned {
	struct interface_view view;
	bool coexist;
	bool is_there;  /* seen in this walk through the directory */
	ino_t pin;      /* another one: the loader has pinned it anew */
	int link;       /* -1: cannot be opened */
	unsigned index; /* without a link: of the interface when the pin was first seen; 0 = none of that name here */
};

struct interfaces {
	pthread_mutex_t lock;
	DIR *dir;
	struct pinned all[INTERFACES_MAX];
	unsigned count;
};

static int open_link(const struct interfaces *interfaces, const char *pin)
{
	char path[64 + NAME_MAX];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd(interfaces->dir), pin);
	return bpf_obj_get(path);
}

static bool is_attached(const struct pinned *pinned)
{
	struct bpf_link_info info = {0};
	__u32 length = sizeof(info);

	unsigned index;

	if (pinned->link < 0) { /* without an index: of another network namespace, where it cannot be looked for */
		index = pinned->index ? if_nametoindex(pinned->view.name) : 0;
		if (pinned->index && !index && errno != ENODEV && errno != ENXIO)
			return pinned->view.is_attached; /* it could not be asked */
		return index == pinned->index;
	}
	return bpf_obj_get_info_by_fd(pinned->link, &info, &length) || info.xdp.ifindex;
}

static struct pinned *find(struct interfaces *interfaces, const char *name, bool coexist)
{
	for (unsigned i = 0; i < interfaces->count; i++)
		if (interfaces->all[i].coexist == coexist && !strcmp(interfaces->all[i].view.name, name))
			return &interfaces->all[i];
	return NULL;
}

static void take_pin(const struct interfaces *interfaces, struct pinned *pinned, const struct dirent *entry)
{
	if (pinned->link >= 0)
		close(pinned->link);
	pinned->pin = entry->d_ino;
	pinned->link = pinned->coexist ? -1 : open_link(interfaces, entry->d_name);
	pinned->index = pinned->link < 0 ? if_nametoindex(pinned->view.name) : 0;
}

static void meet(struct interfaces *interfaces, const struct dirent *entry)
{
	char name[IF_NAMESIZE];
	struct pinned *pinned;
	bool coexist;

	if (!pin_name_to_interface(entry->d_name, name, &coexist))
		return;
	pinned = find(interfaces, name, coexist);
	if (!pinned && interfaces->count == INTERFACES_MAX)
		return;
	if (!pinned) {
		pinned = &interfaces->all[interfaces->count++];
		*pinned = (struct pinned){.coexist = coexist, .link = -1, .view.is_attached = true};
		memcpy(pinned->view.name, name, sizeof(name));
	}
	pinned->is_there = true;
	if (pinned->pin != entry->d_ino)
		take_pin(interfaces, pinned, entry);
}

/* Without what has lost its pin: somebody has detached it. */
static void forget(struct interfaces *interfaces)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < interfaces->count; i++) {
		struct pinned *pinned = &interfaces->all[i];

		if (pinned->is_there) {
			interfaces->all[kept++] = *pinned;
			continue;
		}
		log_info("the gate was detached from %s", pinned->view.name);
		if (pinned->link >= 0)
			close(pinned->link);
	}
	interfaces->count = kept;
}

static void log_change(const struct interfaces *interfaces, const struct pinned *pinned)
{
	unsigned left = 0;

	for (unsigned i = 0; i < interfaces->count; i++)
		left += interfaces->all[i].view.is_attached;
	if (pinned->view.is_attached)
		log_info("the gate is on %s again", pinned->view.name);
	else if (left)
		log_error(
			"the gate is not on %s any more: the interface is gone or was made anew, or the program was taken off it "
			"(sluice status; sluice attach %s). It guards %u other interface%s",
			pinned->view.name, pinned->view.name, left, left == 1 ? "" : "s");
	else
		log_error(
			"the gate is not on %s any more: the interface is gone or was made anew, or the program was taken off it "
			"(sluice status; sluice attach %s). IT GUARDS NOTHING NOW",
			pinned->view.name, pinned->view.name);
}

static void look(struct interfaces *interfaces)
{
	struct dirent *entry;

	for (unsigned i = 0; i < interfaces->count; i++)
		interfaces->all[i].is_there = false;
	rewinddir(interfaces->dir);
	while ((entry = readdir(interfaces->dir)))
		meet(interfaces, entry);
	forget(interfaces);
	for (unsigned i = 0; i < interfaces->count; i++) {
		struct pinned *pinned = &interfaces->all[i];
		bool was_attached = pinned->view.is_attached;

		pinned->view.is_attached = is_attached(pinned);
		if (pinned->view.is_attached != was_attached)
			log_change(interfaces, pinned);
	}
}

void interfaces_open(struct daemon *d)
{
	struct interfaces *interfaces = calloc(1, sizeof(*interfaces));

	if (interfaces)
		interfaces->dir = opendir(d->config.gate.pin_dir);
	if (!interfaces || !interfaces->dir) {
		log_warn("cannot look after the gate's interfaces (%s): if one goes away, only sluice status will tell",
			strerror(errno));
		free(interfaces);
		return;
	}
	pthread_mutex_init(&interfaces->lock, NULL);
	look(interfaces);
	/* A pin in a dispatcher whose interface is not here was not made just now, as one that comes later is. */
	for (unsigned i = 0; i < interfaces->count; i++) {
		struct pinned *pinned = &interfaces->all[i];

		if (!pinned->coexist || pinned->index)
			continue;
		pinned->index = UINT_MAX;
		pinned->view.is_attached = false;
		log_change(interfaces, pinned);
	}
	d->interfaces = interfaces;
}

void interfaces_close(struct daemon *d)
{
	struct interfaces *interfaces = d->interfaces;

	if (!interfaces)
		return;
	for (unsigned i = 0; i < interfaces->count; i++)
		if (interfaces->all[i].link >= 0)
			close(interfaces->all[i].link);
	closedir(interfaces->dir);
	free(interfaces);
	d->interfaces = NULL;
}

void interfaces_look(struct daemon *d)
{
	if (!d->interfaces)
		return;
	pthread_mutex_lock(&d->interfaces->lock);
	look(d->interfaces);
	pthread_mutex_unlock(&d->interfaces->lock);
}

unsigned interfaces_view(struct daemon *d, struct interface_view *views)
{
	unsigned count;

	if (!d->interfaces)
		return 0;
	pthread_mutex_lock(&d->interfaces->lock);
	count = d->interfaces->count;
	for (unsigned i = 0; i < count; i++)
		views[i] = d->interfaces->all[i].view;
	pthread_mutex_unlock(&d->interfaces->lock);
	return count;
}

void interfaces_summarize(struct daemon *d, struct interfaces_summary *summary)
{
	struct interface_view views[INTERFACES_MAX];
	size_t used = 0;

	*summary = (struct interfaces_summary){.is_known = d->interfaces, .pinned = interfaces_view(d, views)};
	for (unsigned i = 0; i < summary->pinned; i++) {
		if (views[i].is_attached) {
			summary->attached++;
			continue;
		}
		if (used < sizeof(summary->missing))
			used += (size_t)snprintf(summary->missing + used, sizeof(summary->missing) - used, "%s%s",
				used ? ", " : "", views[i].name);
	}
}

json_t *interfaces_json(struct daemon *d)
{
	struct interface_view views[INTERFACES_MAX];
	unsigned count = interfaces_view(d, views);
	json_t *list = json_array();

	for (unsigned i = 0; i < count; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:b}", "name", views[i].name, "attached", views[i].is_attached));
	return list;
}
