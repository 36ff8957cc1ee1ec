/** Asks a kernel: a job is sent by code that its user could have written, and by nothing else. */

import type { Kernel, KernelMessage } from '@jupyterlab/services';

const LOAD = "get_ipython().run_line_magic('load_ext', 'tuttilab.magics')";

export interface IAnswer {
  text: string;
  isError: boolean;
}

/** What the code shows, as text. It leaves no number in the kernel's history. */
export async function ask(kernel: Kernel.IKernelConnection, code: string): Promise<IAnswer> {
  await kernel.requestExecute({ code: LOAD, silent: true, store_history: false }).done;
  const future = kernel.requestExecute({ code, store_history: false, stop_on_error: false });
  const texts: string[] = [];
  let isError = false;
  future.onIOPub = message => {
    const type = message.header.msg_type;
    if (type === 'display_data' || type === 'execute_result') {
      texts.push(String((message as KernelMessage.IDisplayDataMsg).content.data['text/plain'] ?? ''));
    } else if (type === 'stream') {
      texts.push((message as KernelMessage.IStreamMsg).content.text);
    } else if (type === 'error') {
      isError = true;
      texts.push((message as KernelMessage.IErrorMsg).content.evalue);
    }
  };
  await future.done;
  return { text: texts.join('\n').trim(), isError };
}
