// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
// A buyer with Node's http module: node steps.js BASE keep|close < steps.json. Input and output are those of steps.py.
'use strict';
const fs = require('fs');
const http = require('http');

const [base, keep] = process.argv.slice(2);
const agent = new http.Agent({keepAlive: keep === 'keep', maxSockets: 1});
const sockets = new Set();

function ask([method, target, body]) {
	return new Promise((resolve, reject) => {
		const headers = body === null ? {} : {'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body)};
		const request = http.request(base + target, {method, agent, headers, timeout: 20000}, (response) => {
			let text = '';

			response.setEncoding('utf8');
			response.on('data', (part) => { text += part; });
			response.on('end', () => resolve({status: response.statusCode, headers: response.headers, body: text}));
			response.on('error', reject);
		});

		request.on('socket', (socket) => sockets.add(socket));
		request.on('timeout', () => request.destroy(new Error('no answer in time')));
		request.on('error', reject);
		request.end(body === null ? undefined : body);
	});
}

async function main() {
	const answers = [];

	for (const step of JSON.parse(fs.readFileSync(0, 'utf8')))
		answers.push(await ask(step));
	agent.destroy();
	console.log(JSON.stringify({answers, connections: sockets.size}));
}

main().catch((error) => { console.error(error); process.exit(1); });
