// The web host of the apps of all tests: what is PUT at a path is there from then on.
//
// It stands for https://app.groundmist.dev, which the PDS and our server reach by their host maps.

import http from "node:http";

export class AppHost {
  #documents = new Map();
  #server = http.createServer((request, response) => this.#serve(request, response));

  async listen(port) {
    await new Promise((resolve, reject) => this.#server.on("error", reject).listen(port, resolve));
  }

  close() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #serve(request, response) {
    if (request.method === "PUT") {
      let body = "";
      for await (const chunk of request) body += chunk;
      this.#documents.set(request.url, body);
      response.writeHead(204).end();
      return;
    }
    const body = this.#documents.get(request.url);
    response.writeHead(body === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(body ?? "{}");
  }
}
