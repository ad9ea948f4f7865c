// Has a server listen on loopback, wherever it wanted to: on a free port, or on LISTEN_PORT. It says where. For `node --require`.
'use strict';
const { Server } = require('node:net');

// What `listen` comes down to. A host given to `listen` itself would be looked up first, and some ask for their port at once.
const { _listen2: bind } = Server.prototype;
Server.prototype._listen2 = function (_address, _port, _family, ...rest) {
  this.once('listening', () => console.log(`listening at http://127.0.0.1:${this.address().port}`));
  return bind.call(this, '127.0.0.1', Number(process.env.LISTEN_PORT || 0), 4, ...rest);
};
