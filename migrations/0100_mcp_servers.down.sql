drop table mcp_server_health, mcp_tool_changes, mcp_tools, mcp_servers;
