import { runAdapterContract } from "../lib/adapter-contract.js";

await runAdapterContract("2.5.6");
