// A proxy of deploy/ as a process on loopback: the very file there, with other ports, host, certificate and log.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";

import { freePort } from "../../lib/port.js";
import { until } from "../../lib/wait.js";
import { request } from "./request.js";

const START_MS_MAX = 15_000;
const HOST = "sync.example.com";
const SERVER = "127.0.0.1:3031";

/** Where run.js keeps the certificate for localhost. */
export const certificateIn = (folder) => ({ certificate: path.join(folder, "fullchain.pem"), key: path.join(folder, "privkey.pem") });

/** The text of a file in deploy/. */
export const deployed = (name) => readFile(path.join(import.meta.dirname, "../../../deploy", name), "utf8");

class Proxy {
  #child;
  #output = "";

  /** Chooses the ports; `start` needs the server's, which is started with the proxy's as its address. */
  static async prepare() {
    const proxy = new this();
    [proxy.port, proxy.httpPort] = [await freePort(), await freePort()];
    proxy.url = `https://localhost:${proxy.port}`;
    proxy.folder = await mkdtemp(path.join(tmpdir(), "groundmist-sync-proxy-"));
    proxy.logFolder = path.join(proxy.folder, "log");
    await mkdir(proxy.logFolder);
    return proxy;
  }

  async start(serverPort) {
    const folder = process.env.GROUNDMIST_TEST_CERTIFICATE;
    if (!folder) throw new Error("there is no certificate: start the cases by proxies/run.js");
    const [program, ...args] = await this.configure(serverPort, certificateIn(folder));
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      cwd: this.folder,
      env: { PATH: `${process.env.PATH}:/usr/sbin`, HOME: this.folder },
    });
    this.#child = child;
    child.on("error", (error) => (this.#output += error.message));
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (this.#output += text));
    }
    const answers = async () => {
      if (child.exitCode !== null || child.pid === undefined) throw new Error(`${program} did not start:\n${this.#output.slice(-4_000)}`);
      return request(this, "/").catch(() => undefined);
    };
    await until(`${program} answering`, answers, START_MS_MAX);
  }

  /** Everything that it has said and written. */
  async logs() {
    const files = await readdir(this.logFolder);
    const texts = await Promise.all(files.map((name) => readFile(path.join(this.logFolder, name), "utf8")));
    return [this.#output, ...texts].join("\n");
  }

  /** The address at which an app with this token connects. */
  urlFor(token) {
    return `wss://localhost:${this.port}/?token=${token}`;
  }

  async dispose() {
    const child = this.#child;
    if (child?.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      const gone = once(child, "exit");
      child.kill("SIGTERM");
      await gone;
    }
    await rm(this.folder, { recursive: true, force: true });
  }
}

export class Caddy extends Proxy {
  async configure(serverPort, { certificate, key }) {
    const file = path.join(this.folder, "Caddyfile");
    const ports = `http_port ${this.httpPort}\n\thttps_port ${this.port}\n\tdefault_bind 127.0.0.1`;
    const text = replaced(await deployed("Caddyfile"), [
      // the first block is that of Caddy itself; at this level it says the most
      ["\n{\n", `\n{\n\tdebug\n\tadmin off\n\t${ports}\n\tskip_install_trust\n`],
      [`\n${HOST} {\n`, `\nlocalhost {\n\ttls ${certificate} ${key}\n`],
      [SERVER, `127.0.0.1:${serverPort}`],
    ]);
    await writeFile(file, text);
    return ["caddy", "run", "--adapter", "caddyfile", "--config", file];
  }
}

export class Nginx extends Proxy {
  async configure(serverPort, { certificate, key }) {
    const site = replaced(await deployed("nginx.conf"), [
      [HOST, "localhost"],
      ["listen [::]:443 ssl;\n", "\n"],
      ["listen [::]:80;\n", "\n"],
      ["listen 443 ssl;", `listen 127.0.0.1:${this.port} ssl;`],
      ["listen 80;", `listen 127.0.0.1:${this.httpPort};`],
      ["/etc/letsencrypt/live/localhost/fullchain.pem", certificate],
      ["/etc/letsencrypt/live/localhost/privkey.pem", key],
      ["/var/log/nginx", this.logFolder],
      ["/var/www/html", this.folder],
      [SERVER, `127.0.0.1:${serverPort}`],
    ]);
    await writeFile(path.join(this.folder, "site.conf"), site);
    const file = path.join(this.folder, "nginx.conf");
    await writeFile(file, this.#main());
    return ["nginx", "-p", this.folder, "-e", "stderr", "-c", file];
  }

  /** What Debian's /etc/nginx/nginx.conf is to the file that it includes. */
  #main() {
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${this.folder}/${name};`);
    return `
      daemon off;
      ${process.getuid() === 0 ? "user root;" : ""}
      pid ${this.folder}/nginx.pid;
      error_log stderr;
      events {}
      http {
        access_log ${this.logFolder}/access.log;
        ${temporary.join("\n")}
        include ${this.folder}/site.conf;
      }`;
  }
}

/** The text with all these replaced, each of which it must have. */
function replaced(text, replacements) {
  for (const [from, to] of replacements) {
    if (!text.includes(from)) throw new Error(`the file in deploy/ has no ${JSON.stringify(from)}`);
    text = text.replaceAll(from, to);
  }
  return text;
}
