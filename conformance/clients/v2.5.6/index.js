export { next as Automerge } from "@automerge/automerge";
export * as automergeRepo from "@automerge/automerge-repo";
export { BrowserWebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket";
