/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The one config file (libconfig syntax), read by all three programs. Every key has a default, so an empty file is valid.
 * Unknown keys, wrong types and values out of range are errors that name file, line, key and what is allowed.
 * docs/sluice.conf.example lists every key.
 */
#ifndef SLUICE_COMMON_CONFIG_H
#define SLUICE_COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sluice/abi.h"

#define CONFIG_DEFAULT_PATH "/etc/sluice/sluice.conf"
#define CONFIG_PATH_MAX 256
#define CONFIG_CONNINFO_MAX 512
#define CONFIG_URL_MAX 512
#define CONFIG_SERVERS_MAX 512
#define CONFIG_NODE_URL_MAX 128
/* Nodes of a fleet, and the highest number a node can have. */
#define CONFIG_NODES_MAX SLUICE_NODES_MAX

/* requests per second and burst, as people write them; rate 0 = off */
struct config_limit {
	double rate;    /* 0, or 0.001 .. 1e9 per second */
	uint32_t burst; /* 1 .. 1e6 */
};

/* One node of the fleet, as buyers reach it. */
struct config_node {
	uint32_t id;                   /* 1..CONFIG_NODES_MAX */
	char url[CONFIG_NODE_URL_MAX]; /* "https://shop1.example": no path, no slash at its end */
};

struct config {
	struct {
		char pin_dir[CONFIG_PATH_MAX]; /* /sys/fs/bpf/sluice */
		bool deny_all;                 /* deny_scope = "protected" (default) | "all" */
		uint32_t max_prefixes;         /* 1048576 */
		uint32_t max_admissions;       /* 131072; also the size of the buyers map */
		uint32_t max_tokens;           /* 262144 live tokens */
		uint32_t max_sources;          /* 262144 */
		uint32_t ring_bytes;           /* 4194304; power of two */
		uint64_t backlog_max;          /* 100000 */
	} gate;
	struct sluice_service services[SLUICE_MAX_SERVICES]; /* default: one, "shop", any address, port 8080, sale */
	unsigned service_count;
	struct config_limit limits[SLUICE_LIMIT_COUNT]; /* by enum sluice_limit_id */
	struct {
		char public_listen[64];              /* "[::]:8080" */
		char control_listen[64];             /* "127.0.0.1:9180"; "" = none */
		char control_socket[108];            /* /run/sluice/control.sock */
		char control_group[32];              /* "" = leave the group as it is */
		char state_dir[CONFIG_PATH_MAX];     /* /var/lib/sluice: keys, control secret */
		char user[32];                       /* run as after start; "" = stay */
		char cors_origin[128];               /* "" = no CORS header */
		uint32_t threads;                    /* 2: HTTP threads, 1..64 */
		uint32_t max_connections;            /* 20000 */
		uint32_t max_connections_per_source; /* 1000: of one IPv4 address or IPv6 /64; 0 = no limit */
		uint32_t idle_s;                     /* 15 */
		bool public_tokens; /* true: buyers get tokens over the public route; false: only the shop's backend issues them */
		uint32_t token_ttl_s;             /* 7200 */
		bool token_bind_network;          /* false */
		uint32_t token_multiplier;        /* 0 = no limit */
		struct config_limit issue_source; /* token issue per source: 5/s burst 20 */
		struct config_limit issue_buyer;  /* token issue per buyer: 1/s burst 10 */
		char webhook_url[CONFIG_URL_MAX]; /* "" = no webhooks; may carry a user and a password: never log it */
		char webhook_secret_file[CONFIG_PATH_MAX]; /* "" = webhook.secret in state_dir */
		char webhook_ca_file[CONFIG_PATH_MAX];     /* "" = the system's certificate authorities */
	} daemon;
	struct {
		char socket[108];                   /* /run/sluice/writer.sock */
		bool in_postgres;                   /* store = "sqlite" (default) | "postgres" */
		char ledger[CONFIG_PATH_MAX];       /* /var/lib/sluice/ledger.db; of the store "sqlite" */
		char postgres[CONFIG_CONNINFO_MAX]; /* "dbname=sluice": how libpq connects; of the store "postgres" */
		char group[32];                     /* "" = leave */
		char user[32];
	} writer;
	struct {
		char redis
			[CONFIG_SERVERS_MAX]; /* "host:port", or several of one Redis Cluster; "" = this node is alone */
		char redis_user[64];          /* ACL user; "" = the default user */
		char redis_password_file[CONFIG_PATH_MAX]; /* "" = none */
		char prefix[32]; /* "sluice": of every key, so that fleets can share a server */
		char secret_file
			[CONFIG_PATH_MAX]; /* shared by the fleet: token keys are derived from it; "" = fleet.secret in state_dir */
		uint32_t timeout_ms;    /* 1000: of one round of calls */
		uint32_t node;          /* 1: the number of this node */
		uint32_t lease_ms;      /* 2000: a lease covers so much of the node's own sales */
		uint32_t fence_after_s; /* 0 = never by itself */
		bool stream;            /* true: orders go to a Redis Stream for each sale */
		uint32_t stream_keep;   /* 100000: entries of a stream that stay although every group has read them */
	} fleet;
	struct config_node nodes[CONFIG_NODES_MAX]; /* of the fleet, this one included; by id */
	unsigned node_count;
};

void config_defaults(struct config *config);
/* Reads `path` over the defaults. Returns 0, -ENOENT, or -EINVAL; `error` (at least 512 bytes) gets one sentence:
 * "/etc/sluice/sluice.conf:12: limits.source.rate must be 0 or 0.001..1000000000".
 */
int config_load(struct config *config, const char *path, char *error, size_t error_size);
/* Does this node belong to a fleet? */
static inline bool config_is_fleet(const struct config *config)
{
	return *config->fleet.redis != '\0';
}
/* NULL if the fleet has no such node. */
const struct config_node *config_node(const struct config *config, uint32_t id);
/* The number of this node among those that `nodes` lists, with a coordinator or without; 0 = it is none of them. */
static inline uint32_t config_own_node(const struct config *config)
{
	return config_node(config, config->fleet.node) ? config->fleet.node : 0;
}
/* What tokens of this node name as their home. */
static inline uint32_t config_home(const struct config *config)
{
	uint32_t own = config_own_node(config);

	return own ? own : 1;
}
/* Turns a rate as people write it into the gate's form, and back. */
void config_limit_to_gate(const struct config_limit *from, struct sluice_limit *to);
void config_limit_from_gate(const struct sluice_limit *from, struct config_limit *to);
/* Sets of the map "rates" for so many sources: a power of two with room for twice as many, because sets fill unevenly. */
uint32_t config_rate_sets(uint32_t max_sources);
/* "source", "prefix", "token", "answer", "syn_prefix", "syn_global": the names in config, API and CLI; NULL if unknown. */
const char *config_limit_name(enum sluice_limit_id id);
/* -1 if there is none of that name. */
int config_limit_id(const char *name);

#endif
