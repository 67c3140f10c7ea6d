// A Node program: orders are files in folders with names of their own, stock is in redis, and a worker adds up.
const { createServer } = require('node:http');
const { execFile } = require('node:child_process');
const { mkdtemp, rm, writeFile, readFile } = require('node:fs/promises');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { Worker, isMainThread, parentPort } = require('node:worker_threads');

function stock() {
  return new Promise((resolve, reject) => {
    const socket = net.connect(6379, 'cache', () => socket.write('INCR stock\r\n'));
    socket.on('error', reject);
    socket.once('data', (data) => { socket.end(); resolve(data.toString()); });
  });
}

async function order() {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'order-'));
  await writeFile(path.join(folder, 'order.json'), JSON.stringify({ id: Math.random() }));
  const text = await readFile(path.join(folder, 'order.json'), 'utf8');
  await rm(folder, { recursive: true });
  return text;
}

const total = () => new Promise((resolve) => new Worker(__filename).once('message', (sum) => resolve(String(sum))));
const day = () => new Promise((resolve) => execFile('/bin/date', ['+%A'], (_, text) => resolve(text)));
const answers = { '/stock': stock, '/order': order, '/total': total, '/day': day };

if (isMainThread) {
  const server = createServer(async (request, response) => {
    const answer = answers[request.url];
    response.statusCode = answer ? 200 : 404;
    response.end(answer ? await answer() : 'no such thing\n');
  });
  server.listen(3000);
  process.on('SIGTERM', () => { server.close(() => process.exit(0)); server.closeAllConnections(); });
} else {
  parentPort.postMessage([1, 2, 3].reduce((a, b) => a + b));
}
