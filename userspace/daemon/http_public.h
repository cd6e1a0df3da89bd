/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The public listener's routes, and what the control listeners share with it. */
#ifndef SLUICE_DAEMON_HTTP_PUBLIC_H
#define SLUICE_DAEMON_HTTP_PUBLIC_H

#include "daemon/http.h"
#include "daemon/issue.h"

extern const struct http_route http_public_routes[];

/* Charges the second and later requests of a kept-alive connection, which the gate does not see. */
bool http_public_admit(struct http_request *request, enum MHD_Result *result);
/* For the listener's `handle`: no order shall come on a connection that something else came on before. */
enum MHD_Result http_public_handle(struct http_request *request);
/* For the listener's `ignores_body`: the gate may have admitted an order before its body arrived, and a yes is never taken back. */
bool http_order_ignores_body(const struct http_request *request);

/* http_page.c */
enum MHD_Result http_page_index(struct http_request *request);
enum MHD_Result http_page_asset(struct http_request *request);
/* http_order.c */
enum MHD_Result http_order_post(struct http_request *request);
enum MHD_Result http_order_get(struct http_request *request);
enum MHD_Result http_order_delete(struct http_request *request);
/* http_token.c */
enum MHD_Result http_token_post_public(struct http_request *request);
enum MHD_Result http_token_post_control(struct http_request *request);
/* The sale of capture 0; false after having answered. */
bool http_find_sale(struct http_request *request, struct sale *sale, enum MHD_Result *result);
/* A JSON object was not what the table asks for. */
struct validate_error;
enum MHD_Result http_send_invalid(struct http_request *request, const struct validate_error *error);

#endif
