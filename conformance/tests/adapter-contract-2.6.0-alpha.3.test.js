import { runAdapterContract } from "../lib/adapter-contract.js";

await runAdapterContract("2.6.0-alpha.3");
